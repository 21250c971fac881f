//! What templates may use: a render depends on values only, so that helm, kustomize and `GitOps` agree on the objects.

use std::fs;

use harness::{CHARTS, OPERATOR};
use regex::Regex;

use super::{checkout, render_case, render_in};

/// Functions and fields whose result depends on the cluster, on the release before, on the clock or on chance.
const IMPURE: &str = r"(?x) [\s({|-] (lookup | gen[A-Z]\w* | rand[A-Z]\w* | uuidv4 | shuffle | now | ago | htpasswd
    | bcrypt | encryptAES | getHostByName | env | expandenv) \b | \.Release\.(Revision|IsUpgrade|IsInstall) \b";

/// The code of a template: its actions without comments and texts.
fn code(template: &str) -> String {
    let actions = Regex::new(r"(?s)\{\{.*?\}\}").expect("a pattern");
    let noise = Regex::new(r#"(?s)/\*.*?\*/|"[^"]*"|`[^`]*`"#).expect("a pattern");
    let code: Vec<&str> = actions.find_iter(template).map(|action| action.as_str()).collect();
    noise.replace_all(&code.join("\n"), " ").into_owned()
}

#[test]
fn no_template_looks_anything_up_or_generates_anything() {
    let impure = Regex::new(IMPURE).expect("a pattern");
    for wrong in ["{{ lookup \"v1\" \"Secret\" }}", "{{- $ca := genCA \"ca\" 9 }}", "{{ (randAlphaNum 9) }}"] {
        assert!(impure.is_match(&code(wrong)), "the pattern must find {wrong}");
    }
    for harmless in ["{{/* lookup now */}}", "{{ include \"portlane.env\" . }}", "{{ $env }} now "] {
        assert!(!impure.is_match(&code(harmless)), "the pattern must not find {harmless}");
    }
    for chart in CHARTS {
        let templates = fs::read_dir(checkout(chart).join("templates")).expect("a folder");
        let files = templates.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
        for file in files {
            let template = fs::read_to_string(&file).expect("a template");
            let found = impure.find(&code(&template)).map(|found| found.as_str().to_owned());
            assert_eq!(found, None, "{}", file.display());
        }
    }
}

#[test]
fn an_upgrade_renders_what_an_installation_renders() {
    assert_eq!(render_in(OPERATOR, CHARTS[1], &["--is-upgrade"], "").ok(), render_case(None));
}
