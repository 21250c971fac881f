-- Health of a PortForward, by docs/gitops.md of Portlane. Follows kstatus: `Stalled` is Degraded, and what may still
-- resolve by itself is Progressing. Only base functions: Argo CD runs scripts of argocd-cm without the string library.

-- Ready=False, and no person has to act: another object of the same sync may come later, or a fleet is starting.
local waits = {GatewayNotFound = true, BackendNotFound = true, NoProxies = true}

local function answer(status, message)
  return {status = status, message = message or ""}
end

local status = obj.status or {}
local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type] = condition
end
local ready, accepted = found.Ready, found.Accepted

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
if accepted ~= nil and accepted.status == "True" and accepted.reason == "Suspended" then
  return answer("Suspended", accepted.message)
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

-- These never affect Ready: the forward is Healthy, and the message says what is not as it should be.
local message = ready.message or ""
local notes = {{"Injected", "False"}, {"ScalingActive", "False"}, {"LimitReached", "True"}}
for _, note in ipairs(notes) do
  local condition = found[note[1]]
  if condition ~= nil and condition.status == note[2] then
    message = message .. "; " .. condition.reason .. ": " .. (condition.message or "")
  end
end
return answer("Healthy", message)
