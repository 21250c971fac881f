//! `portlane validate` and `portlane translate`.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use operator_core::{Group, translate};

use crate::{
    admission::Admission,
    args::{Input, Translate},
    error::Error,
    manifest::{Problem, Sources},
    misspelt,
    store::{Objects, Store},
    verdicts, world,
};

/// Reads all files once.
pub(crate) fn read(input: &Input) -> Result<Store, Error> {
    let admission = Admission::new()?;
    let mut sources = Sources::new(&input.files).map_err(|error| Error::files(&input.files, error))?;
    let mut store = Store::default();
    for (file, change) in sources.standard_input().into_iter().chain(sources.look()) {
        store.take(&admission, &file, change, &input.namespace);
    }
    Ok(store)
}

/// Prints the problems of the manifests. Returns true if there are none.
pub(crate) fn validate(input: &Input) -> Result<bool, Error> {
    let store = read(input)?;
    let mut objects = store.objects(&input.only, &BTreeSet::new());
    let wrong = misspelt::unmatched(&store.objects(&[], &BTreeSet::new()).world, &input.only, None);
    objects.world = world::any_cluster(std::mem::take(&mut objects.world));
    let translation = translate(&objects.world);
    let (refused, warnings) = verdicts::problems(&objects, &translation);
    let problems: BTreeSet<&Problem> = objects.problems.iter().chain(&refused).collect();
    let mut lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.extend(warnings.iter().map(|warning| format!("{warning} (warning)")));
    lines.extend(wrong.iter().cloned());
    lines.push(summary(&objects, problems.len() + wrong.len()));
    print(format!("{}\n", lines.join("\n")).as_bytes())?;
    Ok(problems.is_empty() && wrong.is_empty())
}

/// Writes to standard output. A reader that closes the pipe early is not an error.
pub(crate) fn print(bytes: &[u8]) -> io::Result<()> {
    match io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn summary(objects: &Objects, problems: usize) -> String {
    let skipped = match objects.skipped {
        0 => String::new(),
        skipped => format!(", {skipped} document(s) of other kinds skipped"),
    };
    let count = objects.world.forwards.len();
    let plural = if count == 1 { "" } else { "s" };
    match problems {
        0 => format!("{count} PortForward{plural} valid{skipped}"),
        problems => format!("{count} PortForward{plural} read, {problems} problem(s){skipped}"),
    }
}

/// Prints the configuration document. Returns true if nothing was refused; otherwise prints no document, because a
/// proxy may be following the file that the output is redirected to.
pub(crate) fn translate_to_stdout(args: &Translate) -> Result<bool, Error> {
    let store = read(&args.input)?;
    let mut objects = store.objects(&args.input.only, &BTreeSet::new());
    let all = store.objects(&[], &BTreeSet::new()).world;
    let wrong = misspelt::unmatched(&all, &args.input.only, None);
    let idle = misspelt::unmatched(&all, &[], Some(&args.laptop));
    objects.world = world::laptop(std::mem::take(&mut objects.world), &args.laptop);
    let mut translation = translate(&objects.world);
    let (refused, warnings) = verdicts::problems(&objects, &translation);
    for problem in objects.problems.iter().chain(&refused).chain(&warnings) {
        eprintln!("{problem}");
    }
    for option in wrong.iter().chain(&idle) {
        eprintln!("{option}");
    }
    if !objects.problems.is_empty() || !refused.is_empty() || !wrong.is_empty() {
        eprintln!("no configuration printed; fix the problems above first");
        return Ok(false);
    }
    let mut configuration = translation.configurations.remove(&Group::Laptop).unwrap_or_default();
    configuration.version.number = 1;
    print(configuration.to_yaml()?.as_bytes())?;
    Ok(true)
}
