//! The objects of all files, from the last readable version of each file.

use std::collections::{BTreeMap, BTreeSet};

use crds::{ForwardAgent, ForwardGateway, PortForward};
use operator_core::{ObjectKey, World};
use proxy::log::printable;
use serde::de::DeserializeOwned;

use crate::{
    admission::{Admission, Admitted, Object},
    manifest::{Document, FileChange, Lines, NO_OBJECT, Place, Problem, Skipped},
};

/// Objects by file, with the semantics of an API server: a refused version changes nothing.
#[derive(Default)]
pub(crate) struct Store {
    files: BTreeMap<String, File>,
    taken: u64,
}

#[derive(Default)]
struct File {
    /// The order in which files were first read: if two files define an object, the earlier file takes precedence.
    since: u64,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    objects: BTreeMap<String, Object>,
    problems: Vec<Problem>,
    /// Number of objects of other APIs, by kind.
    other_kinds: BTreeMap<String, usize>,
    /// Whether the file has nothing that is meant for Kubernetes.
    is_no_manifest: bool,
}

/// The objects of all files as input for the translation.
#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) world: World,
    pub(crate) places: BTreeMap<ObjectKey, ObjectPlace>,
    /// Problems of files, of objects, and of objects defined twice.
    pub(crate) problems: BTreeSet<Problem>,
    /// Warnings about valid objects.
    pub(crate) warnings: BTreeSet<Problem>,
    /// The contents of the files that are not forwarded.
    pub(crate) left_out: LeftOut,
}

/// The contents of the files that are not forwarded.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeftOut {
    /// Number of objects of other APIs, by kind.
    other_kinds: BTreeMap<String, usize>,
    skipped: Skipped,
}

impl LeftOut {
    /// Adds the files that were not read.
    pub(crate) fn extend(&mut self, skipped: &Skipped) {
        self.skipped.extend(skipped.clone());
    }

    /// Formats `skipped: 2 Service (other kinds); values.yaml (file of Helm or Kustomize)`, or nothing; without control
    /// characters.
    pub(crate) fn line(&self) -> Option<String> {
        let kinds: Vec<String> = self.other_kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let kinds = (!kinds.is_empty()).then(|| format!("{} (other kinds)", kinds.join(", ")));
        let phrases: Vec<String> = kinds.into_iter().chain(self.skipped.phrases()).collect();
        (!phrases.is_empty()).then(|| printable(&format!("skipped: {}", phrases.join("; "))).into_owned())
    }
}

/// The place where an object is defined.
#[derive(Clone, Debug)]
pub(crate) struct ObjectPlace {
    pub(crate) file: String,
    /// Line of the object and of each of its fields.
    pub(crate) lines: Lines,
}

impl File {
    /// Records that the file has nothing that is meant for Kubernetes any more. If it had objects, they stay: that is a
    /// mistake.
    fn no_longer_a_manifest(&mut self, name: &str) {
        self.is_no_manifest = self.objects.is_empty();
        self.keep_all(name, "is no longer a Kubernetes manifest");
    }

    /// Whether the file was read, and has no document that can be named.
    fn has_nothing(&self) -> bool {
        self.objects.is_empty() && self.problems.is_empty() && self.other_kinds.is_empty()
    }

    /// Keeps the objects, and makes this the only problem of the file.
    fn keep_all(&mut self, name: &str, why: &str) {
        self.problems.clear();
        if let Some(object) = self.objects.values().next() {
            let message = format!("{why}; {} keeps running", object.identity());
            let place = Place { file: name.to_owned(), line: 1 };
            self.problems.push(Problem { place, object: None, field: None, message });
        }
    }
}

impl Store {
    /// Applies a change of one file.
    pub(crate) fn take(&mut self, admission: &Admission, file: &str, change: FileChange, namespace: &str) {
        match change {
            FileChange::Gone => {
                self.files.remove(file);
            }
            FileChange::NoManifest => {
                self.file(file).no_longer_a_manifest(file);
            }
            FileChange::Unreadable(problem) => {
                self.file(file).problems = vec![problem];
            }
            // The document is `null`, or a list without items: a program wrote nothing, as with an empty file.
            FileChange::Documents(documents) if documents.is_empty() && self.has_objects(file) => {
                self.file(file).keep_all(file, "no longer has an object");
            }
            FileChange::Documents(documents) => {
                let before = std::mem::take(self.file(file));
                let now = read(admission, file, &documents, namespace, before);
                self.files.insert(file.to_owned(), now);
            }
        }
    }

    /// Returns a file, which comes after all others if it is new.
    fn file(&mut self, name: &str) -> &mut File {
        self.taken += 1;
        let since = self.taken;
        self.files.entry(name.to_owned()).or_insert_with(|| File { since, ..File::default() })
    }

    fn has_objects(&self, file: &str) -> bool {
        self.files.get(file).is_some_and(|file| !file.objects.is_empty())
    }

    /// Whether no file has an object, valid or not.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.values().all(|file| file.objects.is_empty() && file.problems.is_empty())
    }

    /// Whether no file has a valid object.
    pub(crate) fn has_nothing_valid(&self) -> bool {
        self.files.values().all(|file| file.objects.is_empty())
    }

    /// The objects of all files. An absent file may just have been renamed, so objects in files that are present take
    /// precedence.
    pub(crate) fn objects(&self, only: &[String], absent: &BTreeSet<String>) -> Objects {
        let mut all = Objects::default();
        let mut first: BTreeMap<&str, &Place> = BTreeMap::new();
        let mut files: Vec<(&String, &File)> = self.files.iter().collect();
        files.sort_by_key(|(name, file)| (absent.contains(*name), file.since));
        for (name, file) in files {
            all.problems.extend(file.problems.iter().cloned());
            for (kind, count) in &file.other_kinds {
                *all.left_out.other_kinds.entry(kind.clone()).or_default() += count;
            }
            if file.is_no_manifest {
                all.left_out.skipped.add("not a Kubernetes manifest", name.clone());
            } else if file.has_nothing() {
                all.left_out.skipped.add(NO_OBJECT, name.clone());
            }
            all.world.namespaces.extend(file.namespaces.clone());
            for (identity, object) in &file.objects {
                if let Some(place) = first.get(identity.as_str()) {
                    if !absent.contains(name) {
                        all.problems.insert(duplicate(object, place));
                    }
                } else {
                    first.insert(identity, &object.place);
                    all.add(object, only);
                }
            }
        }
        all
    }
}

fn read(admission: &Admission, file: &str, documents: &[Document], namespace: &str, before: File) -> File {
    let mut now = File { since: before.since, ..File::default() };
    let mut unattributed = false;
    for document in documents {
        match admission.admit(file, document, namespace) {
            Admitted::Other(kind) => *now.other_kinds.entry(kind).or_default() += 1,
            Admitted::Namespace(name, labels) => {
                *now.other_kinds.entry("Namespace".to_owned()).or_default() += 1;
                now.namespaces.insert(name, labels);
            }
            Admitted::Object(object) => match now.objects.get(&object.identity()) {
                Some(other) => now.problems.push(duplicate(&object, &other.place)),
                None => {
                    now.objects.insert(object.identity(), *object);
                }
            },
            Admitted::Refused(problems) => {
                // The last valid version stays: a cluster would have refused this version too.
                let identity = problems.first().and_then(|problem| problem.object.clone());
                match identity.and_then(|identity| before.objects.get_key_value(&identity)) {
                    Some((identity, object)) => {
                        now.objects.entry(identity.clone()).or_insert_with(|| object.clone());
                    }
                    None => unattributed = true,
                }
                now.problems.extend(problems);
            }
        }
    }
    if unattributed {
        // The refused document may be any of the missing objects, with its name or kind misspelt, so all of them stay.
        for (identity, object) in before.objects {
            now.objects.entry(identity).or_insert(object);
        }
    }
    now
}

fn duplicate(object: &Object, first: &Place) -> Problem {
    Problem {
        place: object.place.clone(),
        object: Some(object.identity()),
        field: None,
        message: format!("is also defined at {first}, which takes precedence; remove one of them"),
    }
}

impl Objects {
    fn add(&mut self, object: &Object, only: &[String]) {
        let key = ObjectKey::new(&object.namespace, &object.name);
        match object.kind.as_str() {
            "PortForward" => self.add_forward(key, object, only),
            "ForwardAgent" => {
                if let Some(agent) = self.typed::<ForwardAgent>(object) {
                    self.world.agents.insert(key, agent);
                }
            }
            _ => {
                self.warnings.extend(object.warnings.iter().cloned());
                if let Some(gateway) = self.typed::<ForwardGateway>(object) {
                    self.world.gateways.insert(key, gateway);
                }
            }
        }
    }

    fn add_forward(&mut self, key: ObjectKey, object: &Object, only: &[String]) {
        let wanted = |name: &String| *name == key.name || *name == key.to_string();
        if !only.is_empty() && !only.iter().any(wanted) {
            return;
        }
        self.warnings.extend(object.warnings.iter().cloned());
        if let Some(mut forward) = self.typed::<PortForward>(object) {
            forward.metadata.namespace = Some(key.namespace.clone());
            // Status comes from a cluster; on a laptop, `run` fills it in from the running listeners.
            forward.status = None;
            let (file, lines) = (object.place.file.clone(), object.lines.clone());
            self.places.insert(key.clone(), ObjectPlace { file, lines });
            self.world.forwards.insert(key, Box::new(forward));
        }
    }

    fn typed<T: DeserializeOwned>(&mut self, object: &Object) -> Option<T> {
        serde_json::from_value(object.value.clone())
            .map_err(|error| {
                self.problems.insert(Problem {
                    place: object.place.clone(),
                    object: Some(object.identity()),
                    field: None,
                    message: format!("cannot be read: {error}"),
                });
            })
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::parse;

    const FORWARD: &str = "apiVersion: portlane.dev/v1alpha1\nkind: PortForward\nmetadata: {name: a}\nspec:\n  \
                           placement: {sidecar: {selector: {}}}\n  listeners:\n  - {name: l, protocol: TCP, port: 1, \
                           backends: [{local: {port: 2}}]}\n";

    #[test]
    fn a_file_that_cannot_be_read_at_first_takes_no_precedence_over_earlier_files() {
        let admission = Admission::new().expect("rules");
        let mut store = Store::default();
        let documents = |file: &str| FileChange::Documents(parse(file, FORWARD).expect("YAML"));
        store.take(&admission, "first", documents("first"), "default");
        store.take(&admission, "second", FileChange::missing("second"), "default");
        store.take(&admission, "second", documents("second"), "default");
        let problems = store.objects(&[], &BTreeSet::new()).problems;
        let files: Vec<&str> = problems.iter().map(|problem| problem.place.file.as_str()).collect();
        assert_eq!(files, ["second"], "the later definition is the one to remove: {problems:?}");
    }

    #[test]
    fn a_file_without_documents_keeps_its_objects_and_only_other_documents_replace_them() {
        let admission = Admission::new().expect("rules");
        let mut store = Store::default();
        let mut take = |text: &str| {
            let documents = parse("f", text).expect("YAML").into_iter().flat_map(Document::items).collect();
            store.take(&admission, "f", FileChange::Documents(documents), "default");
            let objects = store.objects(&[], &BTreeSet::new());
            let problems = objects.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            (objects.world.forwards.len(), problems)
        };
        assert_eq!(take("null\n"), (0, String::new()), "a file that never had an object has no problem");
        assert_eq!(take(FORWARD), (1, String::new()));
        let kept = "f:1: no longer has an object; PortForward default/a keeps running";
        assert_eq!(take("null\n"), (1, kept.to_owned()));
        assert_eq!(take("{apiVersion: v1, kind: List, items: []}\n"), (1, kept.to_owned()));
        assert_eq!(take(FORWARD), (1, String::new()), "the problem is fixed");
        assert_eq!(take("{apiVersion: v1, kind: Service, metadata: {name: x}}\n"), (0, String::new()));
    }

    #[test]
    fn what_is_left_out_is_one_line_without_commands_to_the_terminal() {
        let left_out = LeftOut { other_kinds: BTreeMap::from([("\u{1b}[2J\n".to_owned(), 1)]), ..LeftOut::default() };
        assert_eq!(left_out.line().as_deref(), Some("skipped: 1 \\u{1b}[2J\\n (other kinds)"));
    }
}
