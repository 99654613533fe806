//! `logout`: on this machine for sure, at the server if it can be.

use std::fmt;
use std::pin::pin;

use reqwest_reauth::Revocation;
use serde_json::{Value, json};
use tokio::signal;

use crate::account::Account;
use crate::args::Global;
use crate::exit::Exit;
use crate::output::print;
use crate::profile::{self, Name};
use crate::trouble::{Kind, Trouble};

/// Of every profile. The first that fails doesn't keep the others logged in; Ctrl-C does.
///
/// # Errors
/// The profiles can't be listed, or stdout can't be written to. Which logout failed is told here.
pub async fn run_all(global: &Global) -> Result<Exit, Trouble> {
    let (mut exit, mut printed) = (Exit::Success, Ok(()));
    let mut all = Vec::new();
    let mut interrupted = pin!(signal::ctrl_c());
    for name in profile::names(global)? {
        if !global.json {
            eprintln!("{name}:");
        }
        let global = global.about(&name);
        // Dropped, its session waits for what it has begun.
        let done = tokio::select! {
            biased;
            _ = &mut interrupted => Err(Trouble::interrupted()),
            done = one(&global) => done,
        };
        let interrupted = matches!(&done, Err(trouble) if trouble.kind == Kind::Interrupted);
        match done {
            Ok(done) if global.json => all.push(done.json(&name)),
            Ok(done) => printed = printed.and_then(|()| print(done)),
            Err(trouble) => {
                trouble.warn();
                exit = exit.max(trouble.exit);
                all.push(json!({ "profile": name.as_str(), "problem": trouble.message }));
            }
        }
        if interrupted {
            break;
        }
    }
    if global.json {
        print(json!({ "logouts": all }))?;
    }
    printed.map(|()| exit)
}

/// Of all, the next, with what the session has to do after it.
async fn one(global: &Global) -> Result<Done, Trouble> {
    let account = Account::open(global)?;
    let done = log_out(&account).await;
    account.session.drain().await;
    done.map_err(|trouble| account.advise(trouble))
}

/// # Errors
/// The store could not be cleared.
pub async fn run(global: &Global, account: &Account) -> Result<Exit, Trouble> {
    let done = log_out(account).await?;
    match global.json {
        true => print(done.json(&account.name))?,
        false => print(done)?,
    }
    Ok(Exit::Success)
}

/// How a logout went.
struct Done {
    /// `None` where the store can't be read. It may be cleared all the same, if it is damaged.
    was_logged_in: Option<bool>,
    revocation: Revocation,
}

async fn log_out(account: &Account) -> Result<Done, Trouble> {
    let was_logged_in = account.session.is_logged_in().await.ok();
    let revocation = account.session.log_out().await?;
    Ok(Done { was_logged_in, revocation })
}

impl Done {
    fn json(&self, name: &Name) -> Value {
        let word = match self.revocation {
            Revocation::Revoked => "revoked",
            Revocation::Nothing => "nothing",
            Revocation::Pending => "pending",
            _ => "failed",
        };
        json!({
            "profile": name.as_str(),
            "was_logged_in": self.was_logged_in,
            "revocation": word,
        })
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.was_logged_in == Some(false) {
            return f.write_str("not logged in");
        }
        f.write_str("logged out on this machine; ")?;
        f.write_str(match self.revocation {
            Revocation::Revoked => "the server has revoked the refresh token",
            Revocation::Nothing => "nothing was revoked at the server",
            Revocation::Pending => "the store and the server follow",
            _ => "the server could not be told, and may think that the login lives on",
        })
    }
}
