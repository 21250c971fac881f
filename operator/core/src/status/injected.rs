//! The condition `Injected`: whether the pods of a sidecar forward were created with a proxy, and whether an app is in
//! a crash loop. `Injected` never affects `Ready`: a pod that was created before its forward, or while no operator ran,
//! must not block a rollout that waits for `Ready`.

use crate::status::{
    conditions::{ConditionType, Finding, Truth},
    data_plane::{DataPlane, PodIssue},
};

/// The operator does not see pods that the API server refuses. The controller that creates them gets an Event.
const NO_PODS: &str = "no pod matches spec.placement.sidecar.selector yet; if pods should exist, see whether the API \
                       server refuses them: kubectl get events --field-selector reason=FailedCreate";

/// The condition of a forward whose pods are summed up in `pods`.
pub(crate) fn injected(pods: &DataPlane) -> Finding {
    let finding =
        |status, reason: &str, message: String| Finding::new(ConditionType::Injected, status, reason, message);
    let problem = |(pod, issue): &(String, PodIssue)| Some(format!("pod {pod}: {}", issue.problem.as_ref()?));
    let mut problems: Vec<String> = pods.issues.iter().filter_map(problem).collect();
    let is_ignored = !problems.is_empty();
    let crash_loop =
        |(pod, issue): &(String, PodIssue)| Some(format!("pod {pod}: {}", issue.crash_loop.as_ref()?.words()));
    let loops: Vec<String> = pods.issues.iter().filter_map(crash_loop).collect();
    let more = (pods.crash_looping as usize).saturating_sub(loops.len());
    problems.extend(loops);
    problems.extend((more > 0).then(|| format!("{more} more pods are in a crash loop")));
    if pods.uninjected > 0 {
        return finding(Truth::False, "NotInjected", uninjected(pods, problems));
    }
    if !problems.is_empty() {
        let reason = if is_ignored { "AnnotationsIgnored" } else { "AppFailing" };
        return finding(Truth::True, reason, problems.join("; "));
    }
    if pods.total == 0 {
        return finding(Truth::True, "NoMatchingPods", NO_PODS.to_owned());
    }
    finding(Truth::True, "Injected", "every matching pod has a proxy".to_owned())
}

/// Names the pods without a proxy and the remedy.
fn uninjected(pods: &DataPlane, problems: Vec<String>) -> String {
    let uninjected = || pods.issues.iter().filter(|(_, issue)| !issue.injected);
    let names: Vec<&str> = uninjected().map(|(pod, _)| pod.as_str()).collect();
    let more = if (names.len() as u64) < u64::from(pods.uninjected) { ", …" } else { "" };
    // The webhook saw every pod that has a problem. The others lack the label, or no operator answered.
    let advice = uninjected().any(|(_, issue)| issue.problem.is_none()).then(|| {
        "set the label portlane.dev/inject: enabled on the pod template, or restart the pods if the label is set \
         (kubectl rollout restart)"
            .to_owned()
    });
    let what: Vec<String> = advice.into_iter().chain(problems).collect();
    format!(
        "{} of {} pods have no proxy ({}{more}): {}",
        pods.uninjected,
        pods.total,
        names.join(", "),
        what.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::crash_loop::CrashLoop;

    fn of(total: u32, uninjected: u32, issues: &[(&str, bool, Option<&str>)]) -> Finding {
        let issue = |(pod, injected, problem): &(&str, bool, Option<&str>)| {
            ((*pod).to_owned(), PodIssue { injected: *injected, problem: problem.map(str::to_owned), crash_loop: None })
        };
        let issues = issues.iter().map(issue).collect();
        injected(&DataPlane { total, uninjected, issues, ..DataPlane::default() })
    }

    #[test]
    fn pods_without_a_proxy_are_named_with_the_remedy() {
        let none = of(3, 2, &[("a", false, None), ("b", false, None)]);
        assert_eq!((none.status, none.reason.as_str()), (Truth::False, "NotInjected"));
        assert!(none.message.starts_with("2 of 3 pods have no proxy (a, b): set the label"), "{}", none.message);
        let host = of(1, 1, &[("a", false, Some("a pod with hostNetwork cannot"))]);
        assert!(host.message.ends_with("(a): pod a: a pod with hostNetwork cannot"), "{}", host.message);
        let many = of(9, 9, &["a", "b", "c", "d", "e", "f", "g", "h"].map(|pod| (pod, false, None)));
        assert!(many.message.starts_with("9 of 9 pods have no proxy (a, b, c, d, e, f, g, h, …):"), "{}", many.message);
        let mixed = of(3, 1, &[("a", true, Some("annotation x")), ("b", false, None)]);
        assert!(mixed.message.starts_with("1 of 3 pods have no proxy (b): set the label"), "{}", mixed.message);
        assert!(mixed.message.ends_with("; pod a: annotation x"), "{}", mixed.message);
        let tuned = of(1, 0, &[("a", true, Some("annotation x"))]);
        assert_eq!((tuned.status, tuned.reason.as_str()), (Truth::True, "AnnotationsIgnored"));
        assert_eq!(of(0, 0, &[]).reason, "NoMatchingPods");
        assert_eq!(of(2, 0, &[]).reason, "Injected");
    }

    #[test]
    fn an_app_in_a_crash_loop_is_named_with_its_exit_code_and_a_hint() {
        let crash_loop = Some(CrashLoop { container: "app".into(), exit_code: 1 });
        let issues = vec![("a".to_owned(), PodIssue { injected: true, problem: None, crash_loop })];
        let finding = |crash_looping| {
            injected(&DataPlane { total: 3, crash_looping, issues: issues.clone(), ..DataPlane::default() })
        };
        let one = finding(1);
        assert_eq!((one.status, one.reason.as_str()), (Truth::True, "AppFailing"));
        assert!(
            one.message.starts_with("pod a: container app is in a crash loop (exit code 1): if its log"),
            "{}",
            one.message
        );
        assert!(one.message.ends_with("the annotation portlane.dev/app-ports)"), "{}", one.message);
        assert!(finding(3).message.ends_with("; 2 more pods are in a crash loop"), "{}", finding(3).message);
    }
}
