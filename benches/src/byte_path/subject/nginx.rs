//! nginx with its stream module.

use std::{fmt::Write as _, process::Command};

use tempfile::TempDir;

use super::{Ports, port, write};

/// The command of a forwarder in one process. It keeps half-closed connections, as the others do.
pub(super) fn command(ports: Ports, folder: &TempDir) -> Command {
    let place = folder.path().display();
    let mut text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nmaster_process off;\npid {place}/pid;\n\
         error_log {place}/error.log;\nevents {{ worker_connections 19000; }}\nstream {{\nproxy_half_close on;\n"
    );
    for (from, to) in ports.tcp() {
        let _ = writeln!(
            text,
            "server {{ listen 127.0.0.1:{from} backlog=4096; proxy_pass 127.0.0.1:{to}; proxy_timeout 1h; }}"
        );
    }
    let (denied, to) = (ports.denied, port::ECHO);
    // At the usual level, each refusal is an error.
    let _ = writeln!(
        text,
        "server {{ listen 127.0.0.1:{denied} backlog=4096; error_log {place}/error.log crit; deny all; \
         proxy_pass 127.0.0.1:{to}; }}"
    );
    let (udp, to) = (ports.udp, ports.udp_server);
    let _ = writeln!(text, "server {{ listen 127.0.0.1:{udp} udp; proxy_pass 127.0.0.1:{to}; proxy_timeout 1m; }}\n}}");
    let mut command = Command::new("nginx");
    command.arg("-c").arg(write(folder, "nginx.conf", &text));
    command
}
