//! `accounts`: who is logged in, and who commands are about.

use std::fmt::Display;

use serde_json::json;

use crate::account::Account;
use crate::args::{Choice, Global};
use crate::exit::Exit;
use crate::output::print;
use crate::profile::{self, Name};
use crate::trouble::Trouble;

/// # Errors
/// The profiles can't be read, or the one that is to be chosen isn't there.
pub async fn run(global: &Global, choice: Option<&Choice>) -> Result<Exit, Trouble> {
    if let Some(Choice::Use { name }) = choice {
        if !profile::names(global)?.contains(name) {
            return Err(Trouble::usage(format!("there is no profile {:?}", name.as_str()))
                .with_advice("cli accounts lists them; cli login --profile NAME makes one"));
        }
        profile::choose(global, name)?;
    }
    let chosen = profile::chosen(global)?;
    let mut all = Vec::new();
    for name in profile::names(global)? {
        all.push((how_it_stands(global, &name).await, name == chosen, name));
    }
    if global.json {
        let all: Vec<_> = (all.iter())
            .map(|(stands, is_chosen, name)| {
                let (logged_in, problem) = match stands {
                    Ok(logged_in) => (Some(*logged_in), None),
                    Err(trouble) => (None, Some(&trouble.message)),
                };
                json!({
                    "profile": name.as_str(),
                    "chosen": is_chosen,
                    "logged_in": logged_in,
                    "problem": problem,
                })
            })
            .collect();
        print(json!({ "accounts": all }))?;
        return Ok(Exit::Success);
    }
    for (stands, is_chosen, name) in &all {
        let mark = if *is_chosen { '*' } else { ' ' };
        let stands: &dyn Display = match stands {
            Ok(true) => &"logged in",
            Ok(false) => &"not logged in",
            Err(trouble) => &trouble.message,
        };
        print(format_args!("{mark} {name}  {stands}"))?;
    }
    if all.is_empty() {
        eprintln!("there are none: see cli login --help");
    }
    Ok(Exit::Success)
}

async fn how_it_stands(global: &Global, name: &Name) -> Result<bool, Trouble> {
    let account = Account::open(&global.about(name))?;
    Ok(account.session.is_logged_in().await?)
}
