-- The actions that are possible now. The RBAC of Argo CD decides who may run them.
local status = obj.status or {}
local paused = false
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Paused" and condition.status == "True" then
    paused = true
  end
end
local awaited = #((status.decision or {}).approvals or {}) > 0
local running = status.observedGeneration ~= nil and status.outcome == nil
return {
  ["approve"] = { ["disabled"] = not awaited },
  ["pause"] = { ["disabled"] = not running or paused },
  ["resume"] = { ["disabled"] = not paused },
  ["abort"] = { ["disabled"] = not running },
  ["emergency-disable"] = { ["disabled"] = status.observedGeneration == nil },
}
