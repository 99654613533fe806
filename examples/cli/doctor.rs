//! `doctor`: what is wrong, and what to do about it.

use std::time::{Duration, SystemTime};

use reqwest::{Client, Url, header};
use reqwest_reauth::{KeychainStore, Record, ServerMetadata, TokenStore};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::account::{self, Account};
use crate::args::Global;
use crate::exit::Exit;
use crate::output::print;
use crate::profile::{self, Profile, SERVICE};
use crate::tokens::Tokens;
use crate::trouble::{Kind, Trouble};

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    /// What was found, or what is wrong and what to do.
    found: Result<String, Trouble>,
}

/// # Errors
/// Stdout can't be written to. What is wrong is told, and in the exit code.
pub async fn run(global: &Global) -> Result<Exit, Trouble> {
    let mut findings = Vec::new();
    let mut look = |what, found| findings.push(Finding { what, found });
    let profile = Profile::load(global);
    if !matches!(&profile, Ok(Some(profile)) if profile.store != Tokens::Keychain) {
        look("keychain", keychain().await);
    }
    look("profile", profile_found(global, &profile));
    if let Ok(Some(profile)) = profile {
        look("login", login(global, &profile).await);
        look("lock", lock(global, &profile).await);
        match account::endpoint(&profile).discover().await {
            Err(error) => {
                let advice = "check the network, and the issuer of the login";
                look("server", Err(Trouble::from(error).with_advice(advice)));
            }
            Ok(server) => {
                look("server", Ok(server_found(&server)));
                let answer = reach(server.token_endpoint()).await;
                if let Ok(there) = answer {
                    look("clock", clock(there));
                }
                let reached = answer.map(|_| format!("{} answers", server.token_endpoint()));
                look("token endpoint", reached);
            }
        }
    }
    tell(global, findings)
}

fn tell(global: &Global, findings: Vec<Finding>) -> Result<Exit, Trouble> {
    let worst = findings.iter().filter_map(|it| it.found.as_ref().err()).map(|it| it.exit).max();
    if global.json {
        let all: Vec<_> = (findings.iter())
            .map(|Finding { what, found }| match found {
                Ok(found) => json!({ "what": what, "ok": true, "found": found }),
                Err(trouble) => json!({
                    "what": what, "ok": false, "found": trouble.message, "advice": trouble.advice,
                }),
            })
            .collect();
        print(json!({ "ok": worst.is_none(), "findings": all }))?;
    } else {
        for Finding { what, found } in findings {
            match found {
                Ok(found) => print(format_args!("ok     {what}: {found}"))?,
                Err(trouble) => {
                    print(format_args!("WRONG  {what}: {}", trouble.message))?;
                    if let Some(advice) = trouble.advice {
                        print(format_args!("       {advice}"))?;
                    }
                }
            }
        }
    }
    Ok(worst.unwrap_or(Exit::Success))
}

/// Something is put in, read again and taken out.
async fn keychain() -> Result<String, Trouble> {
    let round_trip = spawn_blocking(|| {
        let store = KeychainStore::new(SERVICE, format!(".doctor-{}", std::process::id()));
        let probe = Record::from_bytes(b"probe");
        store.save(&probe)?;
        let read = store.load();
        store.clear()?;
        Ok::<_, reqwest_reauth::StoreError>(
            read?.is_some_and(|record| record.as_bytes() == probe.as_bytes()),
        )
    });
    let advice = "cli login with --store file:DIR does without, with the tokens in clear";
    match tokio::time::timeout(PATIENCE, round_trip).await {
        Ok(Ok(Ok(true))) => Ok("takes, gives and forgets".to_owned()),
        Ok(Ok(Ok(false))) => {
            Err(Trouble::usage("it gives back something else").with_advice(advice))
        }
        Ok(Ok(Err(error))) => {
            Err(Trouble::unavailable("it can't be used", error).with_advice(advice))
        }
        Ok(Err(error)) => Err(Trouble::other("it could not be tried", error)),
        Err(error) => Err(Trouble::unavailable("it does not answer", error).with_advice(advice)),
    }
}

fn profile_found(
    global: &Global,
    profile: &Result<Option<Profile>, Trouble>,
) -> Result<String, Trouble> {
    match profile {
        Ok(Some(_)) => Ok(profile::file(global)?.display().to_string()),
        Ok(None) => Err(Account::open(global).err().unwrap_or_else(|| Trouble::usage("is gone"))),
        Err(trouble) => Err(trouble.clone()),
    }
}

async fn login(global: &Global, profile: &Profile) -> Result<String, Trouble> {
    let account = Account::of(global, profile.clone())?;
    let status = async {
        let status = account.session.status().await?;
        if !status.is_logged_in() {
            return Err(Trouble::new(Kind::LoggedOut, "nobody is logged in"));
        }
        Ok(format!("logged in, the tokens are in {}", status.store()))
    };
    status.await.map_err(|trouble| account.advise(trouble))
}

async fn lock(global: &Global, profile: &Profile) -> Result<String, Trouble> {
    let status = Account::of(global, profile.clone())?.session.status().await?;
    let Some(path) = status.lock_file() else {
        return Ok("none is needed".to_owned());
    };
    // Beside it goes what programs tell each other.
    let directory = path.parent().unwrap_or(path);
    tempfile::NamedTempFile::new_in(directory).map_err(|error| {
        Trouble::unusable(&format!("nothing can be written in {}", directory.display()), error)
            .with_advice("make it yours, or choose another with --state-dir DIR")
    })?;
    Ok(path.display().to_string())
}

fn server_found(server: &ServerMetadata) -> String {
    let says = |what, is_there| if is_there { what } else { "" };
    format!(
        "{}, tokens at {}{}{}{}",
        server.issuer().unwrap_or("endpoints given by hand"),
        server.token_endpoint(),
        says(", logs in in the browser", server.authorization_endpoint().is_some()),
        says(", on another device", server.device_authorization_endpoint().is_some()),
        says(", revokes", server.revocation_endpoint().is_some()),
    )
}

/// What time it is there. Any answer will do: nothing is asked for.
async fn reach(url: &Url) -> Result<Option<SystemTime>, Trouble> {
    let client = Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE);
    let answer = client.build()?.get(url.clone()).send().await?;
    let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
    Ok(date.and_then(|date| httpdate::parse_http_date(date).ok()))
}

fn clock(there: Option<SystemTime>) -> Result<String, Trouble> {
    let Some(there) = there else {
        return Ok("not compared: the server does not say the time".to_owned());
    };
    let here = SystemTime::now();
    let ahead = here.duration_since(there);
    let off = ahead.as_ref().map_or_else(|error| error.duration(), |off| *off);
    if off <= OFF_MAX {
        return Ok(format!("within {} s of the server's", off.as_secs() + 1));
    }
    let way = if ahead.is_ok() { "ahead of" } else { "behind" };
    Err(Trouble::usage(format!("it is {} s {way} the server's", off.as_secs()))
        .with_advice("set it: tokens are refreshed too late or too early until then"))
}

/// A keychain may ask a person.
const PATIENCE: Duration = Duration::from_secs(30);

/// What networks take, and more.
const OFF_MAX: Duration = Duration::from_secs(30);
