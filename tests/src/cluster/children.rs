//! Running components: each has a log, its end is noticed, and all of them end with this process.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use super::{ClusterError, Folder, components::Component};

/// Lines of a log that are printed when its component has ended.
const TAIL: usize = 15;

#[derive(Debug)]
pub(super) struct Children {
    folder: Folder,
    running: Vec<(&'static str, Child)>,
}

impl Children {
    pub(super) fn of(folder: &Folder) -> Self {
        Self { folder: folder.clone(), running: Vec::new() }
    }

    /// Starts a component. The kernel kills the component when this process ends, for whatever reason.
    pub(super) fn start(&mut self, component: &Component) -> Result<(), ClusterError> {
        let failed = || ClusterError::io(format!("cannot start {}", component.name));
        let log = File::create(self.log(component.name)).map_err(failed())?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&component.program).args(&component.arguments);
        command
            .current_dir(self.folder.data())
            .stdin(Stdio::null())
            .stderr(log.try_clone().map_err(failed())?)
            .stdout(log);
        self.running.push((component.name, command.spawn().map_err(failed())?));
        Ok(())
    }

    /// An error if a component has ended by itself.
    pub(super) fn all_run(&mut self) -> Result<(), ClusterError> {
        for (name, child) in &mut self.running {
            if let Ok(Some(status)) = child.try_wait() {
                let name = *name;
                return Err(self.ended(name, status));
            }
        }
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.logs().join(format!("{name}.log"))
    }

    fn ended(&self, name: &str, status: ExitStatus) -> ClusterError {
        let log = self.log(name);
        ClusterError::Ended {
            name: name.to_owned(),
            status: status.to_string(),
            tail: tail(&log, TAIL).unwrap_or_default(),
            log: log.display().to_string(),
        }
    }
}

/// The last lines of a file. If a program of Go ended by a panic, the lines before its stack, which have the reason.
pub(crate) fn tail(path: &Path, lines: usize) -> io::Result<String> {
    Ok(last(&String::from_utf8_lossy(&fs::read(path)?), lines))
}

fn last(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let end = all.iter().rposition(|line| line.starts_with("panic: ")).map_or(all.len(), |panic| panic + 1);
    all[end.saturating_sub(lines)..end].join("\n")
}

impl Drop for Children {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
        }
        for (_, child) in &mut self.running {
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::last;

    #[test]
    fn the_last_lines_are_those_before_the_stack_of_a_panic() {
        assert_eq!(last("one\ntwo\nthree\n", 2), "two\nthree");
        assert_eq!(last("one\n", 2), "one");
        let panicked = "started\nno space left on device\npanic: failed to create WAL\n\ngoroutine 1:\nmain.main()\n";
        assert_eq!(last(panicked, 2), "no space left on device\npanic: failed to create WAL");
    }
}
