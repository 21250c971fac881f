//! Health checks and actions of Argo CD as its ConfigMap `argocd-cm` has them, from the scripts in the layout of Argo
//! CD's own repository. Both forms run the same Lua.

/// Folder of both forms, relative to the folder of this crate.
pub const ARGOCD: &str = "../deploy/argocd/health";
/// Folder of the scripts of our group, relative to [`ARGOCD`].
pub const ARGOCD_SCRIPTS: &str = "resource_customizations/portlane.dev";
/// The generated patch of the ConfigMap, relative to [`ARGOCD`].
pub const ARGOCD_CONFIG_MAP: &str = "argocd-cm.yaml";

/// Kinds with a health check.
const KINDS: [&str; 3] = ["PortForward", "ForwardGateway", "ForwardAgent"];
/// Kinds with actions.
const WITH_ACTIONS: [&str; 2] = ["PortForward", "ForwardAgent"];
/// Their actions.
const ACTIONS: [&str; 2] = ["suspend", "resume"];

const HEAD: &str = "\
# Health checks and actions for Argo CD, as a patch of its ConfigMap argocd-cm:
#   kubectl patch configmap argocd-cm --namespace argocd --patch-file deploy/argocd/health/argocd-cm.yaml
# Generated from the scripts in resource_customizations: cargo run -p portlane-crds --bin crdgen
apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
  namespace: argocd
  labels:
    app.kubernetes.io/name: argocd-cm
    app.kubernetes.io/part-of: argocd
data:
";

/// The patch of `argocd-cm`. `read` gives the text of a file below [`ARGOCD_SCRIPTS`].
///
/// # Errors
/// Those of `read`.
pub fn argocd_config_map<E>(read: impl Fn(&str) -> Result<String, E>) -> Result<String, E> {
    let mut text = HEAD.to_owned();
    for kind in KINDS {
        let script = read(&format!("{kind}/health.lua"))?;
        text += &format!("  resource.customizations.health.portlane.dev_{kind}: |\n{}", indented(&script, 4));
    }
    for kind in WITH_ACTIONS {
        let discovery = read(&format!("{kind}/actions/discovery.lua"))?;
        let mut actions = format!("discovery.lua: |\n{}definitions:\n", indented(&discovery, 2));
        for action in ACTIONS {
            let script = read(&format!("{kind}/actions/{action}/action.lua"))?;
            actions += &format!("- name: {action}\n  action.lua: |\n{}", indented(&script, 4));
        }
        text += &format!("  resource.customizations.actions.portlane.dev_{kind}: |\n{}", indented(&actions, 4));
    }
    Ok(text)
}

/// The lines of a text, moved to the right. Empty lines stay empty.
fn indented(text: &str, spaces: usize) -> String {
    let line = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("{:spaces$}{line}\n", "") };
    text.lines().map(line).collect()
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test that cannot continue panics")]
mod tests {
    use serde_yaml::Value;

    use super::*;

    #[test]
    fn the_config_map_has_every_script_word_for_word() {
        let script = |file: &str| Ok::<_, std::fmt::Error>(format!("-- {file}\n\nif a then\n  b = {{c = 1}}\nend\n"));
        let map: Value = serde_yaml::from_str(&argocd_config_map(script).expect("text")).expect("YAML");
        let data = |key: &str| map["data"][key].as_str().expect("a text").to_owned();
        for kind in KINDS {
            let health = data(&format!("resource.customizations.health.portlane.dev_{kind}"));
            assert_eq!(Ok(health), script(&format!("{kind}/health.lua")));
        }
        let text = |value: &Value| Ok(value.as_str().expect("a text").to_owned());
        for kind in WITH_ACTIONS {
            let actions = data(&format!("resource.customizations.actions.portlane.dev_{kind}"));
            let actions: Value = serde_yaml::from_str(&actions).expect("YAML in YAML");
            assert_eq!(text(&actions["discovery.lua"]), script(&format!("{kind}/actions/discovery.lua")));
            for (at, name) in ACTIONS.iter().enumerate() {
                assert_eq!(actions["definitions"][at]["name"].as_str(), Some(*name));
                let file = format!("{kind}/actions/{name}/action.lua");
                assert_eq!(text(&actions["definitions"][at]["action.lua"]), script(&file));
            }
        }
    }
}
