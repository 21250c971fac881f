//! `portlane validate` and `portlane translate`.

use std::{
    collections::BTreeSet,
    fmt::Display,
    io::{self, Write},
};

use operator_core::{Group, ObjectKey, translate};
use proxy::log::printable;

use crate::{
    admission::Admission,
    args::{Input, Translate},
    complain,
    error::Error,
    forward,
    manifest::{FileChange, Problem, Sources},
    misspelt,
    store::{Objects, Store},
    verdicts, world,
};

/// Reads all files once.
fn read(input: &Input) -> Result<(Store, Sources), Error> {
    let admission = Admission::new()?;
    let paths = input.paths();
    let mut sources = Sources::new(&paths, input.recursive).map_err(|error| Error::files(&paths, error))?;
    let mut store = Store::default();
    let forwards = forward::as_file(&input.forwards());
    for (file, change) in sources.streams().into_iter().chain(sources.look()).chain(forwards) {
        store.take(&admission, &file, change, input.namespace());
    }
    for file in sources.absent() {
        store.take(&admission, &file, FileChange::missing(&file), input.namespace());
    }
    Ok((store, sources))
}

/// Prints the problems of the manifests. Returns true if there are none.
pub(crate) fn validate(input: &Input) -> Result<bool, Error> {
    let (store, sources) = read(input)?;
    let mut objects = store.objects(&input.only, &BTreeSet::new());
    objects.left_out.extend(sources.skipped());
    if store.is_empty() {
        let kinds = "PortForward, ForwardGateway or ForwardAgent";
        return Err(Error::nothing("validate", kinds, &input.paths(), &objects.left_out));
    }
    let wrong = misspelt::unmatched(&store.objects(&[], &BTreeSet::new()).world, &input.only, None);
    let gateways: BTreeSet<ObjectKey> = objects.world.gateways.keys().cloned().collect();
    objects.world = world::any_cluster(std::mem::take(&mut objects.world));
    let translation = translate(&objects.world);
    let (refused, warnings) = verdicts::problems(&objects, &translation);
    let problems: BTreeSet<&Problem> = objects.problems.iter().chain(&refused).collect();
    let mut lines: Vec<String> = problems.iter().map(line).collect();
    lines.extend(warnings.iter().map(|warning| format!("{} (warning)", line(warning))));
    lines.extend(wrong.iter().map(line));
    lines.push(summary(&objects, &gateways, &problems, wrong.len()));
    lines.extend(objects.left_out.line());
    print(format!("{}\n", lines.join("\n")).as_bytes())?;
    Ok(problems.is_empty() && wrong.is_empty())
}

/// One line: names and values in manifests must neither end it nor command the terminal.
fn line(text: &impl Display) -> String {
    printable(&text.to_string()).into_owned()
}

/// Writes to standard output. A reader that closes the pipe early is not an error.
pub(crate) fn print(bytes: &[u8]) -> io::Result<()> {
    match io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// The objects without a problem, and the number of problems.
fn summary(objects: &Objects, gateways: &BTreeSet<ObjectKey>, problems: &BTreeSet<&Problem>, options: usize) -> String {
    let refused: BTreeSet<&str> = problems.iter().filter_map(|problem| problem.object.as_deref()).collect();
    let forwards = valid("PortForward", objects.world.forwards.keys(), &refused);
    let gateways = valid("ForwardGateway", gateways.iter(), &refused);
    let agents = valid("ForwardAgent", objects.world.agents.all().map(|(key, _)| key), &refused);
    let mut parts: Vec<String> = forwards.into_iter().chain(gateways).chain(agents).collect();
    match problems.len() + options {
        0 => {}
        1 => parts.insert(0, "1 problem".to_owned()),
        more => parts.insert(0, format!("{more} problems")),
    }
    parts.join(", ")
}

/// The number of objects without a problem, if there are any.
fn valid<'a>(kind: &str, keys: impl Iterator<Item = &'a ObjectKey>, refused: &BTreeSet<&str>) -> Option<String> {
    match keys.filter(|key| !refused.contains(format!("{kind} {key}").as_str())).count() {
        0 => None,
        1 => Some(format!("1 {kind} valid")),
        count => Some(format!("{count} {kind}s valid")),
    }
}

/// Fails if the manifests have no `PortForward`. One that is suspended or that `--only` leaves out is one, and a problem
/// or a file that is absent just now may hide one.
pub(crate) fn require_forward(
    verb: &'static str,
    store: &Store,
    sources: &Sources,
    input: &Input,
) -> Result<(), Error> {
    let mut objects = store.objects(&[], &BTreeSet::new());
    if !objects.world.forwards.is_empty() || !objects.problems.is_empty() || !sources.absent().is_empty() {
        return Ok(());
    }
    objects.left_out.extend(sources.skipped());
    Err(Error::nothing(verb, "PortForward", &input.paths(), &objects.left_out))
}

/// Prints the configuration document. Returns true if nothing was refused; otherwise prints no document, because a
/// proxy may be following the file that the output is redirected to.
pub(crate) fn translate_to_stdout(args: &Translate) -> Result<bool, Error> {
    let (store, sources) = read(&args.input)?;
    let mut objects = store.objects(&args.input.only, &BTreeSet::new());
    objects.left_out.extend(sources.skipped());
    require_forward("translate", &store, &sources, &args.input)?;
    let all = store.objects(&[], &BTreeSet::new()).world;
    let wrong = misspelt::unmatched(&all, &args.input.only, None);
    let idle = misspelt::unmatched(&all, &[], Some(&args.laptop));
    objects.world = world::laptop(std::mem::take(&mut objects.world), &args.laptop);
    let mut translation = translate(&objects.world);
    let (refused, warnings) = verdicts::problems(&objects, &translation);
    for problem in objects.problems.iter().chain(&refused).chain(&warnings) {
        complain(&line(problem));
    }
    for text in wrong.iter().chain(&idle).chain(&objects.left_out.line()) {
        complain(&line(text));
    }
    if !objects.problems.is_empty() || !refused.is_empty() || !wrong.is_empty() {
        complain("no configuration printed; fix the problems above first");
        return Ok(false);
    }
    let mut configuration = translation.configurations.remove(&Group::Laptop).unwrap_or_default();
    configuration.version.number = 1;
    print(configuration.to_yaml()?.as_bytes())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Place;

    #[test]
    fn a_problem_stays_on_its_line_and_sends_the_terminal_no_command() {
        let place = Place { file: "a\u{1b}[2J.yaml".to_owned(), line: 1 };
        let problem = Problem { place, object: None, field: None, message: "is 'x\ny'".to_owned() };
        assert_eq!(line(&problem), "a\\u{1b}[2J.yaml:1: is 'x\\ny'");
    }
}
