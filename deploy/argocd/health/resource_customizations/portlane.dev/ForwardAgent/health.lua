-- Health of a ForwardAgent, by docs/gitops.md of Portlane. Follows kstatus: `Stalled` is Degraded, and what may still
-- resolve by itself is Progressing. Only base functions: Argo CD runs scripts of argocd-cm without the string library.

-- Ready=False, and nothing has failed: the gateway may come later in the same sync, or the agent has yet to be started.
local waits = {GatewayNotFound = true, NotEnrolled = true}

local function answer(status, message)
  return {status = status, message = message or ""}
end

local status = obj.status or {}
local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type] = condition
end
local ready = found.Ready

if ready == nil then
  return answer("Progressing", "the operator has not written a status yet")
end
local generation = obj.metadata.generation
if generation ~= nil and (status.observedGeneration == nil or status.observedGeneration < generation) then
  return answer("Progressing", "the operator has not seen the newest generation yet")
end
if found.Stalled ~= nil and found.Stalled.status == "True" then
  return answer("Degraded", found.Stalled.reason .. ": " .. (found.Stalled.message or ""))
end
if ready.status == "False" then
  local health = "Degraded"
  if waits[ready.reason] then
    health = "Progressing"
  end
  return answer(health, ready.reason .. ": " .. (ready.message or ""))
end
if ready.status ~= "True" then
  return answer("Progressing", ready.reason .. ": " .. (ready.message or ""))
end
if ready.reason == "Suspended" then
  return answer("Suspended", ready.message)
end
return answer("Healthy", ready.message)
