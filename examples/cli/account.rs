//! The session that a command works with, and where it comes from.

use std::env;

use reqwest_reauth::{ClientSecret, OAuth2Endpoint, Session};

use crate::args::Global;
use crate::environment;
use crate::exit::Exit;
use crate::profile::{Name, Profile, SERVICE, Way};
use crate::tokens::Tokens;
use crate::trouble::{Kind, Trouble};

pub struct Account {
    pub name: Name,
    pub session: Session,
    /// Who may see the token.
    pub origins: Vec<String>,
    pub source: Source,
}

pub enum Source {
    Profile(Box<Profile>),
    /// `REAUTH_TOKEN`.
    Environment,
}

impl Account {
    /// The account of the profile that was asked for.
    ///
    /// # Errors
    /// There is no such profile, or it is of no use.
    pub fn open(global: &Global) -> Result<Self, Trouble> {
        match Profile::load(global)? {
            Some(profile) => Self::of(global, profile),
            None => Err(no_profile(&global.profile)),
        }
    }

    /// As [`open`](Self::open), to use the token: what a refresh will need has to be there.
    ///
    /// # Errors
    /// As `open`, and where the variable for the client's secret is not set.
    pub fn open_to_use(global: &Global) -> Result<Self, Trouble> {
        let account = Self::open(global)?;
        if let Source::Profile(profile) = &account.source
            && let Some(variable) = &profile.client_secret_env
            && env::var_os(variable).is_none()
        {
            return Err(Trouble::usage(format!("the environment variable {variable} is not set"))
                .with_advice("it holds the client's secret, which is not kept in the profile"));
        }
        Ok(account)
    }

    /// # Errors
    /// The profile's settings are wrong.
    pub fn of(global: &Global, profile: Profile) -> Result<Self, Trouble> {
        let endpoint = endpoint(&profile);
        let mut builder = Session::builder(SERVICE, endpoint).account(global.profile.as_str());
        for origin in &profile.origins {
            builder = builder.origin(origin);
        }
        if let Some(directory) = global.state_dir.as_ref().or(profile.state_dir.as_ref()) {
            builder = builder.state_dir(directory);
        }
        let session = profile.store.keep(builder, &global.profile).build()?;
        let origins = profile.origins.clone();
        let source = Source::Profile(Box::new(profile));
        Ok(Self { name: global.profile.clone(), session, origins, source })
    }

    /// Adds what to do next, where that is known and not said yet.
    pub fn advise(&self, trouble: Trouble) -> Trouble {
        if trouble.advice.is_some() {
            return trouble;
        }
        match &self.source {
            Source::Environment if trouble.exit == Exit::LoginNeeded => {
                trouble.with_advice(format!(
                    "the token comes from {}: set it to another one, or unset it to use the \
                     profile's",
                    environment::VARIABLE
                ))
            }
            Source::Profile(profile) if trouble.exit == Exit::LoginNeeded => {
                let name = &self.name;
                // The way of the last login is known; its tokens are not.
                let from = if profile.way == Way::Tokens { " --tokens-stdin" } else { "" };
                trouble.with_advice(format!("log in again: cli login --profile {name}{from}"))
            }
            Source::Profile(profile)
                if trouble.kind == Kind::Store && profile.store == Tokens::Keychain =>
            {
                trouble.with_advice(
                    "cli login with --store file:DIR keeps the tokens in a file, in clear",
                )
            }
            Source::Profile(_) | Source::Environment => trouble,
        }
    }
}

/// The authorization server's, as the profile's client.
pub fn endpoint(profile: &Profile) -> OAuth2Endpoint {
    let client_id = &profile.client_id;
    let mut endpoint = match (&profile.issuer, &profile.token_endpoint) {
        (Some(issuer), _) => OAuth2Endpoint::at_issuer(issuer, client_id),
        (None, Some(url)) => OAuth2Endpoint::new(url, client_id),
        // Which is told when it is used.
        (None, None) => OAuth2Endpoint::new("", client_id),
    };
    if let Some(url) = &profile.authorization_endpoint {
        endpoint = endpoint.authorization_url(url);
    }
    if let Some(url) = &profile.device_authorization_endpoint {
        endpoint = endpoint.device_authorization_url(url);
    }
    if let Some(url) = &profile.revocation_endpoint {
        endpoint = endpoint.revocation_url(url);
    }
    if let Some(variable) = &profile.client_secret_env {
        endpoint = endpoint.client_secret(secret(variable));
    }
    endpoint
}

/// Never kept: only its variable's name is. Asked for when it is needed: a logout works without.
fn secret(variable: &str) -> ClientSecret {
    let variable = variable.to_owned();
    ClientSecret::ask(move || {
        // Not the error's own text, which may show the value.
        env::var(&variable).map_err(|_| format!("set the environment variable {variable} to it"))
    })
}

fn no_profile(name: &Name) -> Trouble {
    Trouble::new(Kind::LoginRequired, format!("there is no profile {name:?}", name = name.as_str()))
        .with_advice(format!(
            "log in first: cli login --profile {name} --browser --issuer URL --client-id ID \
             --origin ORIGIN; see cli login --help"
        ))
}
