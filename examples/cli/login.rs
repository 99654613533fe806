//! `login`: tokens into the store, settings into the profile.

use std::io::{self, IsTerminal};

use reqwest_reauth::TokenResponse;
use serde_json::json;
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

use crate::account::{Account, Source};
use crate::args::{Global, Login};
use crate::exit::Exit;
use crate::output::print;
use crate::profile::{self, Profile};
use crate::trouble::{Kind, Trouble};

/// The account to be logged in, with the settings of the arguments over those of the profile.
///
/// # Errors
/// Something is missing, or wrong.
pub fn account(global: &Global, login: &Login) -> Result<Account, Trouble> {
    if !login.tokens_stdin {
        return Err(Trouble::usage("it is not said how to log in").with_advice(
            "--tokens-stdin reads a token response from stdin; there is no other way as yet",
        ));
    }
    let profile = merge(global, login, Profile::load(global)?)?;
    Account::of(global, profile)
}

/// # Errors
/// What was read are no tokens, or something can't be kept.
pub async fn run(global: &Global, account: &Account) -> Result<Exit, Trouble> {
    let Source::Profile(profile) = &account.source else {
        return Err(Trouble::usage("a login needs a profile"));
    };
    refuse_another_store(global, profile).await?;
    let draft = profile.draft(global)?;
    let tokens = TokenResponse::from_json(&read_stdin().await?)?;
    account.session.log_in(tokens).await?;
    draft.keep()?;

    let status = account.session.status().await?;
    if global.json {
        print(json!({
            "profile": account.name.as_str(),
            "logged_in": status.is_logged_in(),
            "store": status.store(),
        }))?;
    } else {
        print(format_args!("logged in; the tokens are kept in {}", status.store()))?;
    }
    Ok(Exit::Success)
}

fn merge(global: &Global, login: &Login, before: Option<Profile>) -> Result<Profile, Trouble> {
    let before = before.as_ref();
    let token_endpoint =
        login.token_endpoint.clone().or_else(|| Some(before?.token_endpoint.clone()));
    let client_id = login.client_id.clone().or_else(|| Some(before?.client_id.clone()));
    let origins = match before {
        Some(before) if login.origin.is_empty() => before.origins.clone(),
        _ => login.origin.clone(),
    };
    let missing: Vec<_> = [
        ("--token-endpoint URL", token_endpoint.is_none()),
        ("--client-id ID", client_id.is_none()),
        ("--origin ORIGIN", origins.is_empty()),
    ]
    .into_iter()
    .filter_map(|(option, is_missing)| is_missing.then_some(option))
    .collect();
    let (Some(token_endpoint), Some(client_id), true) =
        (token_endpoint, client_id, missing.is_empty())
    else {
        return Err(Trouble::usage(format!(
            "the first login of profile {:?} needs {}",
            global.profile.as_str(),
            missing.join(" ")
        )));
    };
    let optional = |given: &Option<String>, before: Option<&String>| {
        given.as_ref().or(before).filter(|value| !value.is_empty()).cloned()
    };
    Ok(Profile {
        token_endpoint,
        client_id,
        origins,
        client_secret_env: optional(
            &login.client_secret_env,
            before.and_then(|before| before.client_secret_env.as_ref()),
        ),
        revocation_endpoint: optional(
            &login.revocation_endpoint,
            before.and_then(|before| before.revocation_endpoint.as_ref()),
        ),
        store: (login.store.clone()).or_else(|| Some(before?.store.clone())).unwrap_or_default(),
        state_dir: (global.state_dir.clone()).or_else(|| before?.state_dir.clone()),
    })
}

/// Tokens that nobody remembers could neither be used nor revoked.
async fn refuse_another_store(global: &Global, profile: &Profile) -> Result<(), Trouble> {
    let Some(before) = Profile::load(global)?.filter(|before| before.store != profile.store) else {
        return Ok(());
    };
    let store = before.store.clone();
    let way_out = format!(
        "log out first: cli logout --profile {}; or remove {}",
        global.profile,
        profile::file(global)?.display()
    );
    match Account::of(global, before)?.session.is_logged_in().await {
        Ok(false) => Ok(()),
        Ok(true) => Err(Trouble::usage(format!(
            "profile {:?} is still logged in, with its tokens at {store}",
            global.profile.as_str()
        ))
        .with_advice(way_out)),
        Err(error) => Err(Trouble::from(error).with_advice(way_out)),
    }
}

async fn read_stdin() -> Result<Zeroizing<Vec<u8>>, Trouble> {
    if io::stdin().is_terminal() {
        eprintln!("paste a token response (JSON with access_token), then press Ctrl-D");
    }
    let mut bytes = Zeroizing::new(Vec::new());
    (tokio::io::stdin().read_to_end(&mut bytes).await)
        .map_err(|error| Trouble::unusable("could not read stdin", error))?;
    if bytes.trim_ascii().is_empty() {
        return Err(Trouble::new(Kind::Configuration, "there is nothing on stdin")
            .with_advice("a token response is expected there, as JSON with an access_token"));
    }
    Ok(bytes)
}
