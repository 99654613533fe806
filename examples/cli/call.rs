//! `call`: one request, or many at once.

use std::time::Instant;

use indicatif::ProgressBar;
use reqwest::Url;
use tokio::task::JoinSet;

use crate::account::Account;
use crate::args::{Call, Global};
use crate::environment;
use crate::exit::Exit;
use crate::output::print;
use crate::profile::Profile;
use crate::request::Plan;
use crate::tally::Tally;
use crate::trouble::Trouble;

/// The account to call with: that of `REAUTH_TOKEN`, or the profile's.
///
/// # Errors
/// There is neither, or the URL is not one of its origins'.
pub async fn account(global: &Global, call: &Call) -> Result<Account, Trouble> {
    let account = match environment::token()? {
        Some(token) => {
            let origins = match Profile::load(global)? {
                Some(profile) => profile.origins,
                None => vec![call.url.origin().ascii_serialization()],
            };
            environment::account(global, token, origins).await?
        }
        None => Account::open_to_use(global)?,
    };
    let is_target = |origin: &String| {
        Url::parse(origin).is_ok_and(|origin| origin.origin() == call.url.origin())
    };
    if !account.origins.iter().any(is_target) {
        return Err(Trouble::usage(format!(
            "the token may not go to {}, only to {}",
            call.url.origin().ascii_serialization(),
            account.origins.join(", ")
        ))
        .with_advice("cli login with --origin, once for each, says where it may go"));
    }
    Ok(account)
}

/// # Errors
/// The request can't be made, or stdout can't be written to. What became of the requests is told
/// here.
pub async fn run(global: &Global, account: &Account, call: &Call) -> Result<Exit, Trouble> {
    let many = call.count.get() > 1;
    let plan = Plan::new(account, call).await?;
    let mut tally = Tally::default();
    let started = Instant::now();
    if many || global.json {
        tally = send_many(&plan, call).await;
    } else {
        tally.add(plan.send_and_show().await?);
    }
    let wall = started.elapsed();
    // One that began in the background counts too.
    account.session.drain().await;
    let refreshes = account.session.metrics().refreshes;

    if many {
        eprintln!("{}", tally.summary(refreshes, wall));
    }
    if global.json {
        print(tally.json(refreshes, wall))?;
    }
    let exit = tally.exit();
    tally.into_troubles().for_each(|trouble| account.advise(trouble).warn());
    Ok(exit)
}

/// Sends as many as were asked for, and no more at once than may be.
async fn send_many(plan: &Plan, call: &Call) -> Tally {
    let mut tally = Tally::default();
    // Shows nothing where stderr is no terminal.
    let progress = ProgressBar::new(call.count.get() as u64);
    let mut under_way = JoinSet::new();
    let mut left = call.count.get();
    loop {
        while left > 0 && under_way.len() < call.concurrency.get() {
            let plan = plan.clone();
            under_way.spawn(async move { plan.send().await });
            left -= 1;
        }
        let Some(outcome) = under_way.join_next().await else {
            progress.finish_and_clear();
            return tally;
        };
        tally.add(
            outcome
                .unwrap_or_else(|error| Trouble::other("a request came to no end", error).into()),
        );
        progress.inc(1);
    }
}
