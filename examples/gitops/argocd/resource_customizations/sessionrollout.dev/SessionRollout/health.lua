-- Healthy when promoted; Suspended while it is paused or requires manual approval; Degraded when it is stalled or was
-- rolled back; Progressing otherwise. A status of an older generation is ignored.
-- Argo CD gives scripts of its configuration the base and table libraries only; this script needs no other.
local status = obj.status or {}
if status.observedGeneration == nil or status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "the operator has not reconciled this generation yet" }
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition.status
end
local decision = status.decision or {}
local message = decision.message or ""

if conditions["Stalled"] == "True" or status.outcome == "RolledBack" or status.outcome == "Aborted"
    or decision.action == "RollBack" then
  return { status = "Degraded", message = message }
end
if conditions["Ready"] == "True" then
  return { status = "Healthy", message = message }
end
if conditions["Paused"] == "True" or #(decision.approvals or {}) > 0 then
  return { status = "Suspended", message = message }
end
return { status = "Progressing", message = message }
