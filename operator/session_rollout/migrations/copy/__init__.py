"""Online copies: rows of one table become rows of another one while the application keeps working."""
