//! `portlane validate` and `portlane translate`.

mod findings;

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use clap::Args;
use operator_core::{Group, ObjectKey, translate};

use self::findings::{Findings, line};
use crate::{
    admission::Admission,
    complain,
    error::Error,
    forward,
    input::{Input, Laptop},
    manifest::{FileChange, Sources},
    misspelt,
    output::{self, Format},
    store::Store,
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

/// Arguments of `validate`.
#[derive(Args, Debug)]
pub struct Validate {
    /// Which manifests to read.
    #[command(flatten)]
    pub input: Input,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Arguments of `translate`.
#[derive(Args, Debug)]
pub(crate) struct Translate {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) laptop: Laptop,
}

/// Prints the problems of the manifests. Returns true if there are none.
pub(crate) fn validate(args: &Validate) -> Result<bool, Error> {
    let input = &args.input;
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
    let findings = Findings::new(&objects, &gateways, refused, warnings, wrong);
    output::print(&findings, args.output.into(), findings::text)?;
    Ok(findings.valid)
}

/// Writes to standard output. A reader that closes the pipe early is not an error.
pub(crate) fn print(bytes: &[u8]) -> io::Result<()> {
    match io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Fails if the manifests have no `PortForward`. A `PortForward` that is suspended or left out by `--only` counts, and
/// a problem or a temporarily absent file may hide one.
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
    use crate::manifest::{Place, Problem};

    #[test]
    fn a_problem_stays_on_its_line_and_sends_the_terminal_no_command() {
        let place = Place { file: "a\u{1b}[2J.yaml".to_owned(), line: 1 };
        let problem = Problem { place, object: None, field: None, message: "is 'x\ny'".to_owned() };
        assert_eq!(line(&problem), "a\\u{1b}[2J.yaml:1: is 'x\\ny'");
    }
}
