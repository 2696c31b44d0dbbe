-- Creates a SessionRolloutAction: the operator answers in its status, and it stays as a record of what was asked.
local action = {
  apiVersion = "sessionrollout.dev/v1alpha1",
  kind = "SessionRolloutAction",
  metadata = {
    name = obj.metadata.name .. "-approve-" .. os.date("!%Y%m%d%H%M%S"),
    namespace = obj.metadata.namespace,
  },
  spec = { rollout = obj.metadata.name, action = "Approve", reason = "asked for in Argo CD" },
}
-- Bound to what is awaited now: a step of a phase, or the check of a gate. Of several gates, the first.
action.spec.generation = obj.status.observedGeneration
for key, value in pairs(obj.status.decision.approvals[1]) do
  action.spec[key] = value
end
return { { operation = "create", resource = action } }
