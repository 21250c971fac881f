//! Opens the page in a browser. Arguments of programs can be read by other users, so the browser gets a file that only
//! this user can read, and the file leads to the page.

use std::{
    env,
    fs::{OpenOptions, remove_file},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use super::serve::token;

/// The file that leads to the page. Removed on drop.
#[derive(Debug)]
pub(super) struct Opened(PathBuf);

impl Drop for Opened {
    fn drop(&mut self) {
        // A system that cleans its temporary files may have removed the file.
        let _ = remove_file(&self.0);
    }
}

/// Opens this address with the system's program for opening files.
pub(super) fn open(url: &str) -> io::Result<Opened> {
    let path = env::temp_dir().join(format!("portlane-{}.html", token()?));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let opened = Opened(path);
    file.write_all(document(url).as_bytes())?;
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    command.arg(&opened.0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    // Some of these programs run until the browser exits.
    thread::spawn(move || child.wait());
    Ok(opened)
}

/// An HTML page that redirects to an address of this program, which contains no characters that HTML would need
/// escaped.
fn document(url: &str) -> String {
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta http-equiv=\"refresh\" content=\"0; url={url}\">\n<title>Portlane</title>\n<a href=\"{url}\">Portlane</a>\n"
    )
}
