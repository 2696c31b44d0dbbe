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
local disabled = #((status.flags or {}).disabled or {}) > 0
local kept = (status.flags or {}).adoptionRequired == true
local retryable = status.outcome == "RolledBack" or status.outcome == "Aborted"
for _, migration in ipairs(status.migrations or {}) do
  retryable = retryable or migration.state == "Failed"
end
for _, check in ipairs(status.checks or {}) do
  retryable = retryable or (check.job ~= nil and check.verdict == "Fail")
end
return {
  ["approve"] = { ["disabled"] = not awaited },
  ["pause"] = { ["disabled"] = not running or paused },
  ["resume"] = { ["disabled"] = not paused },
  ["abort"] = { ["disabled"] = not running },
  ["retry"] = { ["disabled"] = status.observedGeneration == nil or not retryable },
  ["adopt"] = { ["disabled"] = not kept },
  ["reset"] = { ["disabled"] = not kept },
  ["emergency-disable-all"] = { ["disabled"] = status.observedGeneration == nil },
  ["emergency-enable"] = { ["disabled"] = not disabled },
}
