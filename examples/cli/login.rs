//! `login`: tokens into the store, settings into the profile.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use reqwest_reauth::{BrowserLogin, DeviceLogin, DeviceProgress, DevicePrompt, TokenResponse};
use serde_json::json;
use tokio::fs;
use tokio::io::AsyncReadExt;
use tokio::signal;
use zeroize::Zeroizing;

use crate::account::{self, Account, Source};
use crate::args::{Global, Login};
use crate::exit::Exit;
use crate::output::print;
use crate::profile::{self, Profile, Way};
use crate::trouble::{Kind, Trouble};

/// The account to be logged in, with the settings of the arguments over those of the profile.
///
/// # Errors
/// Something is missing, or wrong.
pub fn account(global: &Global, login: &Login) -> Result<Account, Trouble> {
    let profile = merge(global, login, Profile::load(global)?)?;
    if profile.way == Way::Tokens && !login.tokens_stdin && login.tokens_file.is_none() {
        return Err(Trouble::usage("it is not said how to log in")
            .with_advice("with one of --browser, --device, --tokens-stdin or --tokens-file FILE"));
    }
    Account::of(global, profile)
}

/// # Errors
/// The login came to nothing, what was read are no tokens, or something can't be kept.
pub async fn run(global: &Global, account: &Account, login: &Login) -> Result<Exit, Trouble> {
    let Source::Profile(profile) = &account.source else {
        return Err(Trouble::usage("a login needs a profile"));
    };
    refuse_another_store(global, profile).await?;
    // What can't be kept is known before the person takes the trouble.
    account.session.is_logged_in().await.map(drop).or_else(may_be_replaced)?;
    let draft = profile.draft(global)?;
    let tokens = tokio::select! {
        // Leaves the login's port and the draft behind no more than any other end.
        _ = signal::ctrl_c() => Err(Trouble::interrupted()),
        tokens = tokens(profile, login) => tokens,
    }?;
    match profile.way {
        Way::Browser | Way::Device => account.session.log_in(tokens).await?,
        Way::Tokens => take_over(account, tokens).await?,
    }
    draft.keep()?;

    let status = account.session.status().await?;
    if global.json {
        print(json!({
            "profile": account.name.as_str(),
            "logged_in": status.is_logged_in(),
            "store": status.store(),
            "has_refresh_token": status.has_refresh_token(),
        }))?;
    } else {
        print(format_args!("logged in; the tokens are kept in {}", status.store()))?;
        if !status.has_refresh_token() {
            eprintln!(
                "there is no refresh token: this login ends with its access token; for one that \
                 lasts, many servers want --scope offline_access, some --param prompt=consent, too"
            );
        }
    }
    Ok(Exit::Success)
}

/// Whoever brings the same tokens again, at every start perhaps, must not undo what was refreshed
/// since.
async fn take_over(account: &Account, tokens: TokenResponse) -> Result<(), Trouble> {
    let is_new = account.session.import(tokens).await?;
    if is_new || account.session.is_logged_in().await? {
        return Ok(());
    }
    Err(Trouble::new(
        Kind::LoginRequired,
        "these tokens were taken over before, and that login has ended since",
    )
    .with_advice("get new ones, or log in with --browser or --device"))
}

/// A login puts right what is damaged or lost; a keychain that doesn't answer it can't.
fn may_be_replaced(error: reqwest_reauth::Error) -> Result<(), Trouble> {
    match error.is_store() && !error.is_login_required() {
        true => Err(error.into()),
        false => Ok(()),
    }
}

async fn tokens(profile: &Profile, login: &Login) -> Result<TokenResponse, Trouble> {
    let endpoint = account::endpoint(profile);
    let scope = profile.scope.as_deref().unwrap_or_default();
    match profile.way {
        Way::Browser => {
            let mut browser = BrowserLogin::new(&endpoint).scope(scope);
            for (name, value) in params(profile) {
                browser = browser.param(name, value);
            }
            if let Some(uri) = &profile.redirect_uri {
                browser = browser.redirect_uri(uri);
            }
            if login.no_open {
                browser = browser.without_browser();
            }
            let show = |url: &str| eprintln!("log in in the browser, at\n{url}");
            Ok(browser.run(show).await?)
        }
        Way::Device => {
            let bar = ProgressBar::new_spinner();
            let tell = |progress: DeviceProgress<'_>| match progress {
                DeviceProgress::Prompt(prompt) => show_prompt(prompt),
                progress => bar.set_message(progress.to_string()),
            };
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.enable_steady_tick(Duration::from_millis(200));
            let mut device = DeviceLogin::new(&endpoint).scope(scope);
            for (name, value) in params(profile) {
                device = device.param(name, value);
            }
            let tokens = device.run(tell).await;
            bar.finish_and_clear();
            Ok(tokens?)
        }
        Way::Tokens => {
            let bytes = match &login.tokens_file {
                Some(path) => read_file(path).await?,
                None => read_stdin().await?,
            };
            Ok(TokenResponse::from_json(&bytes)?)
        }
    }
}

fn params(profile: &Profile) -> impl Iterator<Item = (&str, &str)> {
    profile.params.iter().filter_map(|param| param.split_once('='))
}

fn show_prompt(prompt: &DevicePrompt) {
    if io::stderr().is_terminal()
        && let Some(code) = prompt.qr_code()
    {
        eprintln!("{code}");
    }
    eprintln!("{prompt}");
}

async fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    let bytes = fs::read(path)
        .await
        .map_err(|error| Trouble::unusable(&format!("could not read {}", path.display()), error))?;
    Ok(Zeroizing::new(bytes))
}

fn merge(global: &Global, login: &Login, before: Option<Profile>) -> Result<Profile, Trouble> {
    let before = before.as_ref();
    // One way to find the server takes the place of the other. What belongs to a server, secrets
    // above all, is nothing for another one.
    let is_same =
        |given: &Option<String>, before: &Option<String>| given.is_none() || given == before;
    let found_before = before.filter(|before| {
        is_same(&login.issuer, &before.issuer)
            && is_same(&login.token_endpoint, &before.token_endpoint)
    });
    let issuer = login.issuer.clone().or_else(|| found_before?.issuer.clone());
    let token_endpoint =
        login.token_endpoint.clone().or_else(|| found_before?.token_endpoint.clone());
    let client_id = login.client_id.clone().or_else(|| Some(before?.client_id.clone()));
    let origins = match before {
        Some(before) if login.origin.is_empty() => before.origins.clone(),
        _ => login.origin.clone(),
    };
    let missing: Vec<_> = [
        ("--issuer URL", issuer.is_none() && token_endpoint.is_none()),
        ("--client-id ID", client_id.is_none()),
        ("--origin ORIGIN", origins.is_empty()),
    ]
    .into_iter()
    .filter_map(|(option, is_missing)| is_missing.then_some(option))
    .collect();
    let (Some(client_id), true) = (client_id, missing.is_empty()) else {
        return Err(Trouble::usage(format!(
            "the first login of profile {:?} needs {}",
            global.profile.as_str(),
            missing.join(" ")
        )));
    };
    let optional = |given: &Option<String>, before: Option<&String>| {
        given.as_ref().or(before).filter(|value| !value.is_empty()).cloned()
    };
    let of_server = |given: &Option<String>, before: fn(&Profile) -> &Option<String>| {
        optional(given, found_before.and_then(|profile| before(profile).as_ref()))
    };
    Ok(Profile {
        issuer,
        token_endpoint,
        authorization_endpoint: of_server(&login.authorization_endpoint, |profile| {
            &profile.authorization_endpoint
        }),
        device_authorization_endpoint: of_server(&login.device_authorization_endpoint, |profile| {
            &profile.device_authorization_endpoint
        }),
        scope: optional(&login.scope, before.and_then(|before| before.scope.as_ref())),
        params: match before {
            Some(before) if login.param.is_empty() => before.params.clone(),
            _ => login.param.iter().filter(|param| !param.is_empty()).cloned().collect(),
        },
        redirect_uri: optional(
            &login.redirect_uri,
            before.and_then(|before| before.redirect_uri.as_ref()),
        ),
        way: match login {
            Login { browser: true, .. } => Way::Browser,
            Login { device: true, .. } => Way::Device,
            Login { tokens_stdin: true, .. } | Login { tokens_file: Some(_), .. } => Way::Tokens,
            _ => before.map(|before| before.way).unwrap_or_default(),
        },
        client_id,
        origins,
        client_secret_env: of_server(&login.client_secret_env, |profile| {
            &profile.client_secret_env
        }),
        revocation_endpoint: of_server(&login.revocation_endpoint, |profile| {
            &profile.revocation_endpoint
        }),
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
