//! Whether the pods of a sidecar forward were made with a proxy, and whether their apps get along with it. It never enters `Ready`: a pod that was started before its
//! forward, or without the operator, is no reason to hold up everything that waits.

use crate::{DataPlane, Finding, Remark};

/// The condition of a forward that runs in these pods.
pub(crate) fn injected(pods: &DataPlane) -> Finding {
    let told = |status, reason: &str, message: String| Finding::new("Injected", status, reason, message);
    let said = |(pod, remark): &(String, Remark)| Some(format!("pod {pod}: {}", remark.problem.as_ref()?));
    let mut problems: Vec<String> = pods.remarks.iter().filter_map(said).collect();
    let are_ignored = !problems.is_empty();
    let ends = |(pod, remark): &(String, Remark)| Some(format!("pod {pod}: {}", remark.failing.as_ref()?.words()));
    let ending: Vec<String> = pods.remarks.iter().filter_map(ends).collect();
    let more = (pods.failing as usize).saturating_sub(ending.len());
    problems.extend(ending);
    problems.extend((more > 0).then(|| format!("the apps of {more} more pods do")));
    if pods.bare > 0 {
        let bare = || pods.remarks.iter().filter(|(_, remark)| !remark.carries);
        let names: Vec<&str> = bare().map(|(pod, _)| pod.as_str()).collect();
        let more = if (names.len() as u64) < u64::from(pods.bare) { ", …" } else { "" };
        // Those that say why know it; the others were never asked, or nobody was there to answer.
        let advice = bare().any(|(_, remark)| remark.problem.is_none()).then(|| {
            "set the label portlane.dev/inject: enabled on their template, or restart them if it is set (kubectl rollout restart)"
                .to_owned()
        });
        let what: Vec<String> = advice.into_iter().chain(problems).collect();
        let message = format!(
            "{} of {} pods carry no proxy ({}{more}): {}",
            pods.bare,
            pods.total,
            names.join(", "),
            what.join("; ")
        );
        return told("False", "NotInjected", message);
    }
    if !problems.is_empty() {
        let reason = if are_ignored { "AnnotationsIgnored" } else { "AppFailing" };
        return told("True", reason, problems.join("; "));
    }
    if pods.total == 0 {
        return told("True", "NoMatchingPods", "no pod matches the selector yet".to_owned());
    }
    told("True", "Injected", "every matching pod carries a proxy".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Failing;

    fn of(total: u32, bare: u32, remarks: &[(&str, bool, Option<&str>)]) -> Finding {
        let remark = |(pod, carries, problem): &(&str, bool, Option<&str>)| {
            ((*pod).to_owned(), Remark { carries: *carries, problem: problem.map(str::to_owned), failing: None })
        };
        injected(&DataPlane { total, bare, remarks: remarks.iter().map(remark).collect(), ..DataPlane::default() })
    }

    #[test]
    fn pods_without_a_proxy_are_named_with_what_to_do() {
        let none = of(3, 2, &[("a", false, None), ("b", false, None)]);
        assert_eq!((none.status, none.reason.as_str()), ("False", "NotInjected"));
        assert!(none.message.starts_with("2 of 3 pods carry no proxy (a, b): set the label"), "{}", none.message);
        let host = of(1, 1, &[("a", false, Some("a pod with hostNetwork cannot"))]);
        assert!(host.message.ends_with("(a): pod a: a pod with hostNetwork cannot"), "{}", host.message);
        let mixed = of(3, 1, &[("a", true, Some("annotation x")), ("b", false, None)]);
        assert!(mixed.message.starts_with("1 of 3 pods carry no proxy (b): set the label"), "{}", mixed.message);
        assert!(mixed.message.ends_with("; pod a: annotation x"), "{}", mixed.message);
        let tuned = of(1, 0, &[("a", true, Some("annotation x"))]);
        assert_eq!((tuned.status, tuned.reason.as_str()), ("True", "AnnotationsIgnored"));
        let failing = Failing { container: "app".into(), exit_code: 1, is_last: false, left_all_ports: true };
        let remark = Remark { carries: true, problem: None, failing: Some(failing) };
        let ends =
            injected(&DataPlane { total: 1, failing: 3, remarks: vec![("a".into(), remark)], ..DataPlane::default() });
        assert_eq!((ends.status, ends.reason.as_str()), ("True", "AppFailing"));
        assert!(ends.message.starts_with("pod a: container app ends soon after each start"), "{}", ends.message);
        assert!(ends.message.ends_with("; the apps of 2 more pods do"), "{}", ends.message);
        assert!(ends.message.contains("is left all ports of its pod this time"), "{}", ends.message);
        assert_eq!(of(0, 0, &[]).reason, "NoMatchingPods");
        assert_eq!(of(2, 0, &[]).reason, "Injected");
    }
}
