-- Creates a SessionRolloutAction: the operator answers in its status, and it stays as a record of what was asked.
local action = {
  apiVersion = "sessionrollout.dev/v1alpha1",
  kind = "SessionRolloutAction",
  metadata = {
    name = obj.metadata.name .. "-emergency-disable-" .. os.date("!%Y%m%d%H%M%S"),
    namespace = obj.metadata.namespace,
  },
  spec = { rollout = obj.metadata.name, action = "EmergencyDisable", reason = "asked for in Argo CD" },
}
return { { operation = "create", resource = action } }
