//! `logout`: on this machine for sure, at the server if it can be.

use reqwest_reauth::Revocation;
use serde_json::json;

use crate::account::Account;
use crate::args::Global;
use crate::exit::Exit;
use crate::output::print;
use crate::profile;
use crate::trouble::Trouble;

/// Of every profile. The first that fails doesn't keep the others logged in.
///
/// # Errors
/// A profile can't be read, or a store could not be cleared.
pub async fn run_all(global: &Global) -> Result<Exit, Trouble> {
    let mut result = Ok(Exit::Success);
    for name in profile::names(global)? {
        let global = global.about(&name);
        let one = async {
            let account = Account::open(&global)?;
            if !global.json {
                eprintln!("{name}:");
            }
            let done = run(&global, &account).await.map_err(|trouble| account.advise(trouble));
            account.session.drain().await;
            done
        };
        if let Err(trouble) = one.await {
            trouble.warn();
            result = result.and(Err(trouble));
        }
    }
    result
}

/// # Errors
/// The store could not be cleared.
pub async fn run(global: &Global, account: &Account) -> Result<Exit, Trouble> {
    // A store that can't be read may be cleared all the same, if it is damaged.
    let was_logged_in = account.session.is_logged_in().await.ok();
    let revocation = account.session.log_out().await?;
    let (word, at_the_server) = match revocation {
        Revocation::Revoked => ("revoked", "the server has revoked the refresh token"),
        Revocation::Nothing => ("nothing", "nothing was revoked at the server"),
        Revocation::Pending => ("pending", "the store and the server follow"),
        _ => ("failed", "the server could not be told, and may think that the login lives on"),
    };
    if global.json {
        print(json!({
            "profile": account.name.as_str(),
            "was_logged_in": was_logged_in,
            "revocation": word,
        }))?;
    } else if was_logged_in == Some(false) {
        print("not logged in")?;
    } else {
        print(format_args!("logged out on this machine; {at_the_server}"))?;
    }
    Ok(Exit::Success)
}
