-- Creates a SessionRolloutAction: the operator answers in its status, and it stays as a record of what was asked.
local action = {
  apiVersion = "sessionrollout.dev/v1alpha1",
  kind = "SessionRolloutAction",
  metadata = {
    name = string.sub(obj.metadata.name, 1, 200) .. "-approve-" .. os.date("!%Y%m%d%H%M%S"),
    namespace = obj.metadata.namespace,
  },
  spec = { rollout = obj.metadata.name, action = "Approve", reason = "asked for in Argo CD" },
}
-- Bound to what is awaited now: a step of a phase, or the check of a gate.
action.spec.generation = obj.metadata.generation
for _, hint in ipairs(((obj.status or {}).decision or {}).unblockedBy or {}) do
  if string.find(hint, "`Approve`", 1, true) then
    local check = string.match(hint, "and check ([%w%-]+)$")
    if check ~= nil then
      action.spec.check = check
    else
      action.spec.phase = obj.status.current.phase
      action.spec.step = obj.status.current.step
    end
    break
  end
end
return { { operation = "create", resource = action } }
