//! The settings of an agent: from options, variables and its file, in this order of precedence.

use std::{ffi::OsString, io, net::SocketAddr, path::PathBuf, time::Duration};

use tunnel::proxy_connect::Proxy;
use tunnel_core::{Side, allow::AllowList, hello::Instance};

use super::{
    args::{Log, Options, Secret},
    error::Error,
    texts,
};
use crate::state;

/// The variable with a join string.
const JOIN: &str = "PORTLANE_JOIN";
/// Folder of agents within the state folder of the user.
const FOLDER: &str = "portlane-agent";
/// Seconds to wait for streams before exit.
const DRAIN: u32 = 60;
/// Longest name of an instance.
const LABEL: usize = 63;

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) join: Option<Join>,
    pub(super) allow: AllowList,
    /// Folder of the key and the certificate.
    pub(super) data: PathBuf,
    pub(super) instance: Instance,
    pub(super) health: Option<SocketAddr>,
    pub(super) log: Log,
    pub(super) drain: Duration,
    pub(super) proxy: Option<Proxy>,
}

/// The source of the join string.
#[derive(Clone, Debug)]
pub(super) enum Join {
    Text(Secret),
    File(PathBuf),
    Standard,
}

impl Join {
    fn of(options: &Options) -> Option<Self> {
        let file = |path: &PathBuf| match path.to_str() {
            Some("-") => Self::Standard,
            _ => Self::File(path.clone()),
        };
        options.join.clone().map(Self::Text).or_else(|| options.join_file.as_ref().map(file))
    }

    /// Reads the join string.
    pub(super) fn read(&self) -> Result<Secret, Error> {
        let (place, read) = match self {
            Self::Text(secret) => return Ok(secret.clone()),
            Self::File(path) => (path.display().to_string(), texts::file(path)),
            Self::Standard => ("standard input".to_owned(), texts::whole(io::stdin().lock())),
        };
        read.map(Secret::from).map_err(|source| Error::Join { place, source })
    }
}

impl Settings {
    /// The settings of an agent on a host of this name. `variable` returns the value of a variable of the environment.
    pub(super) fn new(
        given: &Options,
        file: &Options,
        variable: impl Fn(&str) -> Option<OsString>,
        host: &str,
    ) -> Result<Self, Error> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let joins = Join::of(given).or_else(|| text(JOIN).map(|text| Join::Text(text.into())));
        let entries = if given.allow.is_empty() { &file.allow } else { &given.allow };
        let data = given.data.clone().or_else(|| file.data.clone());
        let name = given.name.clone().or_else(|| file.name.clone()).unwrap_or_else(|| label(host));
        let seconds = given.drain_seconds.or(file.drain_seconds).unwrap_or(DRAIN);
        let url = text("HTTPS_PROXY").or_else(|| text("https_proxy"));
        let except = text("NO_PROXY").or_else(|| text("no_proxy")).unwrap_or_default();
        let proxy = url.map(|url| Proxy::parse(&url)).transpose().map_err(Error::Proxy)?;
        Ok(Self {
            join: joins.or_else(|| Join::of(file)),
            allow: AllowList::parse(Side::Dialler, entries).map_err(Error::Allow)?,
            data: data.or_else(|| folder(variable("XDG_STATE_HOME"), variable("HOME"))).ok_or(Error::NoFolder)?,
            instance: Instance::new(&name).map_err(Error::Name)?,
            health: given.health_address.or(file.health_address),
            log: given.log.or(file.log).unwrap_or(Log::Text),
            drain: Duration::from_secs(seconds.into()),
            proxy: proxy.map(|proxy| proxy.except(&except)),
        })
    }
}

/// The folder of agents.
fn folder(state: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    Some(state::folder(state, home)?.join(FOLDER))
}

/// Turns the name of a host into one DNS label.
fn label(host: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let label: String = host.chars().map(plain).take(LABEL).collect();
    match label.trim_matches('-') {
        "" => "agent".to_owned(),
        label => label.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tunnel_core::join::Address;

    use super::*;
    use crate::agent::args::tests::{file, options};

    fn settings(words: &[&str], text: &str, variables: &[(&str, &str)]) -> Result<Settings, Error> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Settings::new(&options(words), &file(text), variable, "pi4")
    }

    /// The settings of a user with a home folder.
    fn at_home(words: &[&str], text: &str, variables: &[(&str, &str)]) -> Settings {
        settings(words, text, &[variables, &[("HOME", "/home/ada")]].concat()).expect("valid settings")
    }

    fn join_of(settings: &Settings) -> String {
        match &settings.join {
            Some(Join::Text(secret)) => secret.text().to_owned(),
            Some(Join::File(path)) => path.display().to_string(),
            Some(Join::Standard) => "-".to_owned(),
            None => String::new(),
        }
    }

    #[test]
    fn an_option_counts_more_than_a_variable_and_a_variable_more_than_the_file() {
        let (none, variable): (&[&str], _) = (&[], &[("PORTLANE_JOIN", "from the variable")][..]);
        let (unset, empty): (&[(&str, &str)], _) = (&[], &[("PORTLANE_JOIN", "")][..]);
        for (words, text, variables, expected) in [
            (&["--join", "given"][..], "join: in the file", variable, "given"),
            (&["--join-file", "/given"][..], "join: in the file", variable, "/given"),
            (&["--join-file", "-"][..], "", variable, "-"),
            (none, "join: in the file", variable, "from the variable"),
            (none, "join-file: /in/the/file", empty, "/in/the/file"),
            (none, "join: in the file", unset, "in the file"),
            (none, "", unset, ""),
        ] {
            assert_eq!(join_of(&at_home(words, text, variables)), expected, "{words:?} {text}");
        }
        let text = "allow: ['a:1']\ndata: /file\nname: file\ndrain-seconds: 1\nlog: json\nhealth-address: '[::1]:1'\n";
        let words = ["--allow", "b:2", "--data", "/given", "--name", "given", "--drain-seconds", "2", "--log", "text"];
        let given = at_home(&[&words[..], &["--health-address", "[::1]:2"]].concat(), text, &[]);
        let told = |settings: &Settings| {
            let allow: Vec<String> = settings.allow.entries().iter().map(ToString::to_string).collect();
            let Settings { data, instance, health, log, drain, .. } = settings;
            format!("{allow:?} {} {instance} {health:?} {log:?} {drain:?}", data.display())
        };
        assert_eq!(told(&given), "[\"b:2\"] /given given Some([::1]:2) Text 2s");
        assert_eq!(told(&at_home(&[], text, &[])), "[\"a:1\"] /file file Some([::1]:1) Json 1s");
        let usual = "[] /home/ada/.local/state/portlane-agent pi4 None Text 60s";
        assert_eq!(told(&at_home(&[], "", &[])), usual);
    }

    #[test]
    fn the_folder_is_in_that_of_the_users_state() {
        let folder = |state: &str, home: &str| {
            let some = |text: &str| Some(OsString::from(text)).filter(|text| !text.is_empty());
            folder(some(state), some(home)).map(|path| path.display().to_string())
        };
        assert_eq!(folder("/state", "/home/ada").as_deref(), Some("/state/portlane-agent"));
        assert_eq!(folder("", "/home/ada").as_deref(), Some("/home/ada/.local/state/portlane-agent"));
        assert_eq!(folder("", ""), None);
        assert_eq!(settings(&[], "", &[]).expect_err("no home").code(), 2);
        settings(&["--data", "/data"], "", &[]).expect("a folder is named");
    }

    #[test]
    fn the_name_of_a_host_becomes_a_label() {
        for (host, expected) in [
            ("pi4", "pi4"),
            ("Adas-MacBook.local", "adas-macbook-local"),
            ("db_1.example.com.", "db-1-example-com"),
            ("-\u{fc}-", "agent"),
            ("", "agent"),
        ] {
            assert_eq!(label(host), expected);
        }
        Instance::new(&label(&format!("{}.{}", "a".repeat(62), "b".repeat(62)))).expect("a label");
    }

    #[test]
    fn the_proxy_of_the_environment_leaves_out_the_hosts_of_no_proxy() {
        let proxy = |variables: &[(&str, &str)]| at_home(&[], "", variables).proxy;
        assert_eq!(proxy(&[("HTTPS_PROXY", "")]), None);
        let lower = proxy(&[("https_proxy", "http://p:1"), ("no_proxy", "lan")]).expect("a proxy");
        let upper = proxy(&[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", "lan"), ("https_proxy", "http://q:2")]);
        assert_eq!(upper.expect("a proxy"), lower);
        let reached = |host: &str| lower.leaves_out(&Address::new(host, 7443).expect("an address"));
        assert!(reached("edge.lan") && !reached("edge.example.com"));
        let error = settings(&["--data", "/data"], "", &[("HTTPS_PROXY", "socks5://p:1")]).expect_err("a scheme");
        assert_eq!(error.code(), 2);
    }

    #[test]
    fn an_option_that_cannot_be_used_is_named() {
        for (words, name) in
            [(["--allow", "db"], "--allow: entry 1"), (["--name", "Pi 4"], "--name: name of an instance")]
        {
            let error = settings(&[&words[..], &["--data", "/data"]].concat(), "", &[]).expect_err("not valid");
            assert_eq!((error.code(), error.to_string().starts_with(name)), (2, true), "{error}");
        }
    }
}
