-- What may be asked for now; who may ask is for RBAC and the chart's admission policy to say.
local status = obj.status or {}
local decision = status.decision or {}
local paused, awaited = false, false
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Paused" and condition.status == "True" then
    paused = true
  end
end
for _, hint in ipairs(decision.unblockedBy or {}) do
  if string.find(hint, "`Approve`", 1, true) then
    awaited = true
  end
end
local running = status.observedGeneration ~= nil and status.outcome == nil
return {
  ["approve"] = { ["disabled"] = not awaited },
  ["pause"] = { ["disabled"] = not running or paused },
  ["resume"] = { ["disabled"] = not paused },
  ["abort"] = { ["disabled"] = not running },
  ["emergency-disable"] = { ["disabled"] = status.observedGeneration == nil },
}
