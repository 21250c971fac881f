//! What annotations of a pod say about its proxy. They only tune: one that cannot be followed is left out and told.

use std::collections::BTreeMap;

use serde_json::Value;

/// Prefix of the annotations.
const PREFIX: &str = "portlane.dev/proxy-";
/// Annotation of the seconds that the app waits for the first configuration.
const STARTUP: &str = "portlane.dev/startup-seconds";
/// Most seconds that it may wait.
const LONGEST_STARTUP: u32 = 600;

/// How a proxy is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tuning {
    /// Its image, if not the usual one.
    pub(super) image: Option<String>,
    /// info, warn or error.
    pub(super) log_level: String,
    /// Seconds that the app waits for the first configuration.
    pub(super) startup_seconds: u32,
    /// What is set aside, by resource.
    pub(super) requests: BTreeMap<&'static str, String>,
    /// The most that it may use, by resource.
    pub(super) limits: BTreeMap<&'static str, String>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            image: None,
            log_level: "info".to_owned(),
            startup_seconds: 10,
            requests: BTreeMap::from([("cpu", "10m".to_owned()), ("memory", "16Mi".to_owned())]),
            // A quota on limits refuses pods one of whose containers has none.
            limits: BTreeMap::from([("cpu", "2".to_owned()), ("memory", "256Mi".to_owned())]),
        }
    }
}

/// Reads the annotations of a pod; what cannot be followed stays as it usually is, and is told.
pub(super) fn tuning(annotations: &Value) -> (Tuning, Vec<String>) {
    let (mut tuning, mut problems) = (Tuning::default(), Vec::new());
    let of = |name: &str| annotations[format!("{PREFIX}{name}")].as_str();
    if let Some(image) = of("image") {
        if is_image(image) {
            tuning.image = Some(image.to_owned());
        } else {
            problems.push(format!("annotation {PREFIX}image is no name of an image; the usual one is taken"));
        }
    }
    if let Some(level) = of("log-level") {
        if matches!(level, "info" | "warn" | "error") {
            level.clone_into(&mut tuning.log_level);
        } else {
            problems.push(format!(
                "annotation {PREFIX}log-level is '{}', not info, warn or error; info is taken",
                short(level)
            ));
        }
    }
    if let Some(text) = annotations[STARTUP].as_str() {
        match text.parse() {
            Ok(seconds) if seconds <= LONGEST_STARTUP => tuning.startup_seconds = seconds,
            _ => problems
                .push(format!("annotation {STARTUP} is '{}', not 0 to {LONGEST_STARTUP}; 10 is taken", short(text))),
        }
    }
    resources(&of, &mut tuning, &mut problems);
    (tuning, problems)
}

/// The beginning of what somebody wrote: an annotation that repeats it must not grow too large.
fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Whether a container runtime would take this for the name of an image. It would keep the pod from starting if not.
fn is_image(name: &str) -> bool {
    let is_alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let chars = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    name.len() <= 512
        && is_alphanumeric(name.chars().next())
        && is_alphanumeric(name.chars().last())
        && name.chars().all(chars)
}

fn resources<'a>(of: &impl Fn(&str) -> Option<&'a str>, tuning: &mut Tuning, problems: &mut Vec<String>) {
    for resource in ["cpu", "memory"] {
        let mut amount = |kind: &str| {
            let text = of(&format!("{resource}-{kind}"))?;
            let parsed = quantity(text);
            if parsed.is_none() {
                problems.push(format!(
                    "annotation {PREFIX}{resource}-{kind} is '{}', no quantity such as 100m or 64Mi; it is left out",
                    short(text)
                ));
            }
            parsed.map(|parsed| (text, parsed))
        };
        let (request, limit) = (amount("request"), amount("limit"));
        if let (Some((request, wanted)), Some((limit, most))) = (request, limit)
            && wanted > most
        {
            problems.push(format!(
                "annotations ask for {request} of {resource} and allow {limit} at most; both are left out"
            ));
            continue;
        }
        if let Some((text, _)) = request {
            tuning.requests.insert(resource, text.to_owned());
        }
        if let Some((text, _)) = limit {
            tuning.limits.insert(resource, text.to_owned());
        }
        // One of the two was said, and the other follows.
        let said = limit.or(request);
        let of = |amounts: &BTreeMap<_, String>| amounts.get(resource).and_then(|amount| quantity(amount));
        if let Some((text, _)) = said
            && of(&tuning.requests) > of(&tuning.limits)
        {
            tuning.requests.insert(resource, text.to_owned());
            tuning.limits.insert(resource, text.to_owned());
        }
    }
}

/// A quantity as a number, to be compared with others: those that people write, without exponents.
fn quantity(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "m" => 0.001,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        _ => return None,
    };
    number.parse::<f64>().ok().filter(|number| number.is_finite() && text.len() <= 32).map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn annotations_tune_and_what_cannot_be_followed_is_told_and_left_out() {
        assert_eq!(tuning(&Value::Null), (Tuning::default(), Vec::new()));
        let good = json!({
            "portlane.dev/proxy-image": "example.com/proxy:2", "portlane.dev/proxy-log-level": "warn",
            "portlane.dev/startup-seconds": "0", "portlane.dev/proxy-cpu-request": "1.5",
            "portlane.dev/proxy-cpu-limit": "2", "portlane.dev/proxy-memory-limit": "8Mi",
        });
        let (tuned, problems) = tuning(&good);
        assert_eq!((problems, tuned.startup_seconds, tuned.log_level.as_str()), (Vec::new(), 0, "warn"));
        assert_eq!(
            (tuned.requests["cpu"].as_str(), tuned.requests["memory"].as_str()),
            ("1.5", "8Mi"),
            "at most the limit"
        );
        let (more, _) = tuning(&json!({"portlane.dev/proxy-cpu-request": "3"}));
        assert_eq!((more.requests["cpu"].as_str(), more.limits["cpu"].as_str()), ("3", "3"), "at least the request");
        let bad = json!({
            "portlane.dev/proxy-image": "two words", "portlane.dev/proxy-log-level": "loud",
            "portlane.dev/startup-seconds": "-1", "portlane.dev/proxy-cpu-request": "2",
            "portlane.dev/proxy-cpu-limit": "100m", "portlane.dev/proxy-memory-limit": "much",
        });
        let (tuned, problems) = tuning(&bad);
        assert_eq!((tuned, problems.len()), (Tuning::default(), 5), "{bad}");
    }
}
