//! The tokens of one agent: which join string its Secret offers, and what a token grants.

use proxy_api::{SignReason, SignRefusal};
use tunnel_core::{
    enrolment::{Ledger, Refusal},
    identity::{AgentIdentity, Fingerprint},
    join::{Address, JoinString, Token},
};

use super::{NoAddress, Wanted, judge::permitted, refusal};
use crate::status::agent::Enrolment;

/// The contents of an agent's Secret. They are never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The join string. Absent if nobody may enrol.
    pub join: Option<String>,
    /// The tokens that were issued.
    pub ledger: Ledger,
}

/// The decision on the Secret of an agent.
pub struct Offer {
    /// The new contents. Absent if the Secret needs no write.
    pub write: Option<Kept>,
    /// The enrolment for the status of the agent.
    pub enrolment: Enrolment,
    /// Seconds until the join string must be replaced. Absent if there is none.
    pub again: Option<u64>,
}

/// Makes sure that the Secret of an agent has a join string while an instance may still enrol, and none afterwards. A
/// valid join string with the same addresses stays. `root` is the fingerprint of the root, `token` an unpredictable
/// secret, and `now` the time in seconds since 1970.
#[must_use]
pub fn offer(kept: &Kept, wanted: &Wanted, root: Fingerprint, token: &Token, now: u64) -> Offer {
    let identity = &wanted.identity;
    // Agents that enrolled under another root have to enrol again.
    let mut kept = kept.clone();
    kept.ledger.set_root(root);
    let kept = &kept;
    let enrolled = enrolled(&kept.ledger, identity);
    let left = wanted.redemptions.saturating_sub(enrolled);
    let enrolment = Enrolment { enrolled, left, ..Enrolment::default() };
    if left == 0 {
        let write = kept.join.is_some().then(|| Kept { join: None, ledger: kept.ledger.clone() });
        return Offer { write, enrolment, again: None };
    }
    let addresses = match &wanted.addresses {
        Ok(addresses) => addresses,
        Err(NoAddress::Awaited(what)) => {
            let enrolment = Enrolment { awaited: Some(what.clone()), ..enrolment };
            return Offer { write: None, enrolment, again: None };
        }
        Err(NoAddress::Missing(why)) => return failed(enrolment, why.clone()),
    };
    let with_secret = Enrolment { secret: Some(wanted.secret()), ..enrolment.clone() };
    if let Some(join) = standing(kept, wanted, addresses, root, now) {
        return Offer { write: None, enrolment: with_secret, again: Some(join.expires().saturating_sub(now)) };
    }
    match issued(kept, wanted, addresses, (root, token), left, now) {
        Ok(next) => Offer { write: Some(next), enrolment: with_secret, again: Some(u64::from(wanted.expire_seconds)) },
        Err(why) => failed(enrolment, why),
    }
}

fn failed(enrolment: Enrolment, why: String) -> Offer {
    Offer { write: None, enrolment: Enrolment { failure: Some(why), ..enrolment }, again: None }
}

/// The number of instances that have enrolled as `identity`.
fn enrolled(ledger: &Ledger, identity: &AgentIdentity) -> u32 {
    u32::try_from(ledger.enrolled(identity)).unwrap_or(u32::MAX)
}

/// The present join string, if it is still valid.
fn standing(kept: &Kept, wanted: &Wanted, addresses: &[Address], root: Fingerprint, now: u64) -> Option<JoinString> {
    let join = JoinString::parse(kept.join.as_deref()?).ok()?;
    let is_same = join.root() == root && join.addresses() == addresses && *join.agent() == *wanted.identity.agent();
    let is_live = kept.ledger.is_live(&join.token().fingerprint(), &wanted.identity, now) && !join.expired(now);
    (is_same && is_live).then_some(join)
}

/// A new join string, and the ledger with its token; or why there can be none.
fn issued(
    kept: &Kept,
    wanted: &Wanted,
    addresses: &[Address],
    (root, token): (Fingerprint, &Token),
    left: u32,
    now: u64,
) -> Result<Kept, String> {
    let identity = &wanted.identity;
    let expires = now.saturating_add(wanted.expire_seconds.into());
    let join = JoinString::new(addresses.to_vec(), root, identity.agent().clone(), expires, token.clone());
    let join = join.map_err(|why| why.to_string())?;
    let mut ledger = kept.ledger.clone();
    ledger.prune(identity, now);
    ledger.issue(identity.clone(), token.fingerprint(), left, expires, now).map_err(|why| why.to_string())?;
    Ok(Kept { join: Some(join.encode()), ledger })
}

/// The grant of a token to the owner of the key with the fingerprint `key`: the ledger to store before the answer, if
/// it changed, and the identity to sign.
///
/// # Errors
/// Why the token enrols nobody.
pub fn redeem(
    ledger: &Ledger,
    wanted: &Wanted,
    token: &Token,
    key: &Fingerprint,
    now: u64,
) -> Result<(Option<Ledger>, AgentIdentity), SignRefusal> {
    let agent = wanted.identity.agent();
    let refused = |why: Refusal| refusal(SignReason::Token, why.to_string());
    let mut next = ledger.clone();
    let grant = next.redeem(&token.fingerprint(), agent, key, now).map_err(refused)?;
    let identity = permitted(wanted, &grant.identity)?;
    if grant.again {
        return Ok((None, identity));
    }
    // Tokens with earlier addresses may still be valid. Together they enrol no more instances than one of them.
    if enrolled(&next, &grant.identity) > wanted.redemptions {
        return Err(refused(Refusal::Redeemed(agent.clone())));
    }
    Ok((Some(next), identity))
}
