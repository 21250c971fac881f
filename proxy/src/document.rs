//! Follows a configuration in a file.

use std::{error::Error as _, io, path::PathBuf};

use proxy::{
    follow::{Followed, LOOK_EVERY},
    handle::{Ended, Proxy},
    log::Level,
};
use proxy_api::{Configuration, MAX_DOCUMENT_BYTES, Offer};
use tokio::signal::unix::Signal;

/// Applies the document until the proxy ends. SIGHUP reads the file again.
pub(crate) async fn follow(path: PathBuf, proxy: &Proxy, mut hangup: Signal) -> Ended {
    let mut file = Watched { followed: Followed::new(path.clone()), path, refusal: None, was_read: false };
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            Some(()) = hangup.recv() => {
                proxy.log().notice(Level::Info, "reading", "configuration", "SIGHUP: reading the file again");
                file.followed.read_again();
                file.refusal = None;
            }
        }
        if let Err(ended) = update(&mut file, proxy).await {
            return ended;
        }
    }
}

async fn update(file: &mut Watched, proxy: &Proxy) -> Result<(), Ended> {
    let name = file.path.display();
    if proxy.has_ended() {
        return Err(Ended);
    }
    let refusal = match file.followed.changed(MAX_DOCUMENT_BYTES) {
        Ok(None) => return Ok(()),
        // A mounted file is briefly missing while it is replaced.
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.was_read => return Ok(()),
        Err(error) => format!("cannot read {name}: {error}"),
        Ok(Some(bytes)) => match Configuration::decode(&bytes) {
            Ok(mut configuration) => {
                file.refusal = None;
                file.was_read = true;
                seal(&mut configuration);
                return proxy.apply(configuration).await.map(drop);
            }
            Err(error) => {
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                format!("{name}: {error}{cause}")
            }
        },
    };
    // Report each refusal once, not at every poll.
    if file.refusal.as_ref() != Some(&refusal) {
        file.refusal = Some(refusal.clone());
        proxy.refuse(refusal).await?;
    }
    Ok(())
}

/// Gives every listener the revision of its content. A person who edits the file does not know how to compute it, and a
/// listener with the revision that runs counts as unchanged.
fn seal(configuration: &mut Configuration) {
    for offer in configuration.listeners.values_mut() {
        if let Offer::Supported(listener) = offer {
            *offer = (**listener).clone().sealed().into();
        }
    }
}

/// The followed document and its last refusal.
struct Watched {
    path: PathBuf,
    followed: Followed,
    refusal: Option<String>,
    was_read: bool,
}
