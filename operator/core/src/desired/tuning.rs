//! Annotations of a pod that tune its proxy. An invalid annotation is ignored and reported; the pod still gets a proxy.

use std::{collections::BTreeMap, str::FromStr};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Prefix of the tuning annotations.
const PREFIX: &str = "portlane.dev/proxy-";
/// Annotation with the seconds that the app waits for the first configuration.
const STARTUP: &str = "portlane.dev/startup-seconds";
/// Most seconds that the app may wait.
const LONGEST_STARTUP: u32 = 600;

/// Resources of a proxy container: quantities by resource name, such as cpu and memory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Quantities that the scheduler reserves.
    #[serde(default, deserialize_with = "amounts")]
    pub requests: BTreeMap<String, String>,
    /// Quantities that the container may not exceed.
    #[serde(default, deserialize_with = "amounts")]
    pub limits: BTreeMap<String, String>,
}

impl Default for Resources {
    fn default() -> Self {
        let amounts = |cpu: &str, memory: &str| {
            BTreeMap::from([("cpu".to_owned(), cpu.to_owned()), ("memory".to_owned(), memory.to_owned())])
        };
        // A ResourceQuota on limits rejects a pod if a container has no limits.
        Self { requests: amounts("10m", "16Mi"), limits: amounts("1", "256Mi") }
    }
}

/// Why default resources are refused at startup.
#[derive(Debug, thiserror::Error)]
pub enum ResourcesError {
    /// The text is not JSON of this form.
    #[error("not a JSON object with requests and limits")]
    Json(#[from] serde_json::Error),
    /// The text is not a quantity.
    #[error("{0} is not a quantity such as 100m or 64Mi")]
    NoQuantity(String),
    /// A proxy would not start with this limit.
    #[error("{0} is too little for a proxy to start: set at least 50m of cpu and 16Mi of memory")]
    TooLittle(String),
    /// The request exceeds the limit.
    #[error("requests.{0} is more than limits.{0}: set both to consistent quantities")]
    Contradiction(String),
}

impl FromStr for Resources {
    type Err = ResourcesError;

    /// Checks what the API server checks: resources that the API server refuses would block the creation of every
    /// injected pod.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all: Self = serde_json::from_str(text)?;
        for (kind, amounts) in [("requests", &all.requests), ("limits", &all.limits)] {
            for (resource, text) in amounts {
                let setting = || format!("{kind}.{resource} '{}'", short(text));
                let amount = quantity(text).filter(|_| resource == "cpu" || !text.ends_with('m'));
                let amount = amount.ok_or_else(|| ResourcesError::NoQuantity(setting()))?;
                if kind == "limits" && amount < least(resource) {
                    return Err(ResourcesError::TooLittle(setting()));
                }
            }
        }
        let more = |(resource, wanted): &(&String, &String)| {
            let most = all.limits.get(*resource).and_then(|most| quantity(most));
            most.is_some_and(|most| quantity(wanted).is_some_and(|wanted| wanted > most))
        };
        match all.requests.iter().find(more) {
            Some((resource, _)) => Err(ResourcesError::Contradiction(resource.clone())),
            None => Ok(all),
        }
    }
}

/// Reads quantities by resource; YAML turns a whole number of CPUs into a number.
fn amounts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Amount {
        Text(String),
        Number(serde_json::Number),
    }
    let all = BTreeMap::<String, Amount>::deserialize(from)?;
    let text = |amount| match amount {
        Amount::Text(text) => text,
        Amount::Number(number) => number.to_string(),
    };
    Ok(all.into_iter().map(|(resource, amount)| (resource, text(amount))).collect())
}

/// The tuned settings of one proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tuning {
    /// Image of the proxy; `None` is the default image.
    pub(super) image: Option<String>,
    /// Log level: info, warn or error.
    pub(super) log_level: String,
    /// Seconds that the app waits for the first configuration.
    pub(super) startup_seconds: u32,
    /// Whether health and metrics are served on the address of the pod.
    pub(super) health: bool,
    /// Resources of the proxy.
    pub(super) resources: Resources,
}

impl Default for Tuning {
    fn default() -> Self {
        let (image, resources) = (None, Resources::default());
        Self { image, log_level: "info".to_owned(), startup_seconds: 10, health: true, resources }
    }
}

/// Reads the annotations of a pod. An invalid annotation leaves its default in place and adds a problem.
pub(super) fn tuning(annotations: &Value, defaults: &Resources) -> (Tuning, Vec<String>) {
    let mut tuning = Tuning { resources: defaults.clone(), ..Tuning::default() };
    let mut problems = Vec::new();
    let of = |name: &str| annotations[format!("{PREFIX}{name}")].as_str();
    if let Some(image) = of("image") {
        if is_image(image) {
            tuning.image = Some(image.to_owned());
        } else {
            problems.push(format!("annotation {PREFIX}image is not an image reference; using the default image"));
        }
    }
    if let Some(level) = of("log-level") {
        if matches!(level, "info" | "warn" | "error") {
            level.clone_into(&mut tuning.log_level);
        } else {
            problems.push(format!(
                "annotation {PREFIX}log-level is '{}', not info, warn or error; using info",
                short(level)
            ));
        }
    }
    if let Some(text) = annotations[STARTUP].as_str() {
        match text.parse() {
            Ok(seconds) if seconds <= LONGEST_STARTUP => tuning.startup_seconds = seconds,
            _ => problems
                .push(format!("annotation {STARTUP} is '{}', not 0 to {LONGEST_STARTUP}; using 10", short(text))),
        }
    }
    match of("health") {
        None | Some("enabled") => {}
        Some("disabled") => tuning.health = false,
        Some(text) => {
            problems.push(format!(
                "annotation {PREFIX}health is '{}', not enabled or disabled; using enabled",
                short(text)
            ));
        }
    }
    resources(&of, &mut tuning.resources, &mut problems);
    (tuning, problems)
}

/// The first 40 characters of a value: a message that quotes the value must stay short.
fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Whether a container runtime accepts an image reference: HOST[:PORT]/PATH[:TAG][@DIGEST], the path in lower case. An
/// invalid reference would keep the pod from starting.
fn is_image(name: &str) -> bool {
    let (name, digest) = name.split_once('@').map_or((name, None), |(name, digest)| (name, Some(digest)));
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) =
        name[slash..].split_once(':').map_or((name, None), |(last, tag)| (&name[..slash + last.len()], Some(tag)));
    let is_word = |text: &str, allowed: fn(char) -> bool| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        ends(text.chars().next()) && ends(text.chars().last()) && text.chars().all(allowed)
    };
    let is_part = |part: &str| is_word(part, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c));
    let is_host = |part: &str| is_word(part, |c| c.is_ascii_alphanumeric() || ".-:".contains(c));
    let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let has_host = rest.is_some() && (first.contains(['.', ':']) || first == "localhost");
    name.len() <= 255
        && (if has_host { is_host(first) } else { is_part(first) })
        && rest.is_none_or(|rest| rest.split('/').all(is_part))
        && tag.is_none_or(|tag| tag.len() <= 128 && is_word(tag, |c| c.is_ascii_alphanumeric() || "._-".contains(c)))
        && digest.is_none_or(|digest| {
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            hex.len() == 64 && hex.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
        })
}

/// The lowest limit of a proxy. With less memory the proxy does not start. With less CPU its probes time out: each
/// probe is a process that counts towards the limit.
fn least(resource: &str) -> f64 {
    match resource {
        "cpu" => 0.05,
        "memory" => 16.0 * 1_048_576.0,
        _ => 0.0,
    }
}

fn resources<'a>(of: &impl Fn(&str) -> Option<&'a str>, all: &mut Resources, problems: &mut Vec<String>) {
    for resource in ["cpu", "memory"] {
        let mut amount = |kind: &str| {
            let text = of(&format!("{resource}-{kind}"))?;
            // The unit `m` of memory is a thousandth of a byte, which must be a mistake.
            let is_too_small = |amount: f64| kind == "limit" && amount < least(resource);
            let parsed =
                quantity(text).filter(|amount| !(resource == "memory" && text.ends_with('m') || is_too_small(*amount)));
            if parsed.is_none() {
                let what = if resource == "cpu" {
                    "not a quantity such as 100m, or less than 50m"
                } else {
                    "not a quantity such as 64Mi, or less than 16Mi"
                };
                problems
                    .push(format!("annotation {PREFIX}{resource}-{kind} is '{}', {what}; ignoring it", short(text)));
            }
            parsed.map(|parsed| (text, parsed))
        };
        let (request, limit) = (amount("request"), amount("limit"));
        if let (Some((request, wanted)), Some((limit, most))) = (request, limit)
            && wanted > most
        {
            problems.push(format!(
                "annotations request {} of {resource}, more than their limit of {}; ignoring both",
                short(request),
                short(limit)
            ));
            continue;
        }
        if let Some((text, _)) = request {
            all.requests.insert(resource.to_owned(), text.to_owned());
        }
        if let Some((text, _)) = limit {
            all.limits.insert(resource.to_owned(), text.to_owned());
        }
        // If only one of the two is annotated, the other follows.
        let of = |amounts: &BTreeMap<String, String>| amounts.get(resource).and_then(|amount| quantity(amount));
        if let (Some((text, _)), Some(wanted), Some(most)) = (limit.or(request), of(&all.requests), of(&all.limits))
            && wanted > most
        {
            all.requests.insert(resource.to_owned(), text.to_owned());
            all.limits.insert(resource.to_owned(), text.to_owned());
        }
    }
}

/// A quantity as a number for comparison. Supports every unit, but no exponents.
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
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        _ => return None,
    };
    number.parse::<f64>().ok().filter(|number| number.is_finite() && text.len() <= 32).map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tuned(annotations: &Value) -> (Tuning, Vec<String>) {
        tuning(annotations, &Resources::default())
    }

    #[test]
    fn annotations_tune_and_an_invalid_one_is_reported_and_ignored() {
        assert_eq!(tuned(&Value::Null), (Tuning::default(), Vec::new()));
        let good = json!({
            "portlane.dev/proxy-image": "example.com:5000/team/proxy:2", "portlane.dev/proxy-log-level": "warn",
            "portlane.dev/startup-seconds": "0", "portlane.dev/proxy-cpu-request": "1.5",
            "portlane.dev/proxy-cpu-limit": "2", "portlane.dev/proxy-memory-limit": "16Mi",
            "portlane.dev/proxy-memory-request": "8Mi", "portlane.dev/proxy-health": "disabled",
        });
        let (all, problems) = tuned(&good);
        assert_eq!((problems, all.startup_seconds, all.log_level.as_str(), all.health), (Vec::new(), 0, "warn", false));
        assert_eq!((all.resources.requests["cpu"].as_str(), all.resources.limits["memory"].as_str()), ("1.5", "16Mi"));
        let (more, _) = tuned(&json!({"portlane.dev/proxy-cpu-request": "3"}));
        let resources = more.resources;
        assert_eq!(
            (resources.requests["cpu"].as_str(), resources.limits["cpu"].as_str()),
            ("3", "3"),
            "at least the request"
        );
        let bad = json!({
            "portlane.dev/proxy-image": "two words", "portlane.dev/proxy-log-level": "loud",
            "portlane.dev/startup-seconds": "-1", "portlane.dev/proxy-cpu-request": "2",
            "portlane.dev/proxy-cpu-limit": "100m", "portlane.dev/proxy-memory-limit": "400m",
            "portlane.dev/proxy-memory-request": "much", "portlane.dev/proxy-health": "maybe",
        });
        let (all, problems) = tuned(&bad);
        assert_eq!((all, problems.len()), (Tuning::default(), 7), "{problems:?}");
    }

    #[test]
    fn default_resources_are_refused_if_no_pod_could_have_them() {
        let read = |text: &str| text.parse::<Resources>().map_err(|error| error.to_string());
        let good = read(r#"{"requests": {"cpu": 1}, "limits": {"cpu": "1500m", "memory": "1e-", "x": "1"}}"#);
        assert!(good.is_err_and(|why| why.starts_with("limits.memory '1e-' is not a quantity")));
        let good = read(r#"{"requests": {"cpu": 1, "memory": "64Mi"}, "limits": {"cpu": "1500m"}}"#).expect("good");
        assert_eq!((good.requests["cpu"].as_str(), good.limits["cpu"].as_str()), ("1", "1500m"));
        for (text, why) in [
            (r#"{"requests": {"memory": "512Mi"}, "limits": {"memory": "256Mi"}}"#, "requests.memory is more"),
            (r#"{"limits": {"memory": "256MB"}}"#, "not a quantity"),
            (r#"{"limits": {"memory": "400m"}}"#, "not a quantity"),
            (r#"{"limits": {"memory": "8Mi"}}"#, "too little"),
            (r#"{"limits": {"cpu": "5m"}}"#, "too little"),
            (r#"{"limit": {}}"#, "not a JSON object"),
            ("", "not a JSON object"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn names_of_images_are_those_that_a_runtime_takes() {
        let digest = format!("a/b@sha256:{}", "0a".repeat(32));
        for good in
            ["proxy", "proxy:1", "localhost/a/b:x_1", "Registry.local:5000/a", "a/b-c.d/e:V1.2", digest.as_str()]
        {
            assert!(is_image(good), "{good}");
        }
        for bad in
            ["", "Proxy", "example.com/Team/proxy:1", "a:b:c", "a//b", "a/", "-a", "a:", "a@sha256:1", "a b", "a:1@x"]
        {
            assert!(!is_image(bad), "{bad}");
        }
    }
}
