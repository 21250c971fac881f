-- Health of a ForwardGateway, by docs/gitops.md of Portlane. Follows kstatus: `Stalled` is Degraded, and what may still
-- resolve by itself is Progressing. Only base functions: Argo CD runs scripts of argocd-cm without the string library.

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
  if ready.reason == "ScaledToZero" then
    health = "Suspended"
  end
  return answer(health, ready.reason .. ": " .. (ready.message or ""))
end
if ready.status ~= "True" then
  return answer("Progressing", ready.reason .. ": " .. (ready.message or ""))
end

-- ScalingActive never affects Ready: the gateway is Healthy, and the message says what is not as it should be.
local message = ready.message or ""
local scaling = found.ScalingActive
if scaling ~= nil and scaling.status == "False" then
  message = message .. "; " .. scaling.reason .. ": " .. (scaling.message or "")
end
return answer("Healthy", message)
