//! Storms and faults: many requests on a token that the server refuses, callers that are dropped,
//! refreshes that fail, many programs, steady load over many expiries. Beside this crate, in the
//! same run, a token behind a mutex as people write it, and as a yardstick a client that is told from
//! outside when to go on: everybody is refused, the token is refreshed once, everybody sends again.
//!
//! The server rotates refresh tokens, and revokes the login when a spent one comes again. It is in
//! this process; the programs are processes of their own, with their tokens in a file and one open
//! connection for each request. Counts are those of the worst round, times the median, to be
//! compared within one run.
//!
//! `cargo bench --bench storm` takes about three minutes.

#[path = "../sheet.rs"]
mod sheet;

mod by_hand;
mod case;
mod program;
mod steady;

use std::time::Duration;

use mock_server::{Fault, Route};

use case::{Case, Measured};
use program::{Deed, Peer};
use sheet::{Claim, Sheet};

fn main() {
    if program::run() {
        return;
    }
    case::raise_the_limit_of_open_files();
    at_once("1,000 requests at once on a stale token", 1_000, 1.02, Some(100)).print();
    at_once("10,000 requests at once on a stale token", 10_000, 1.01, None).print();
    late().print();
    first_dropped().print();
    failing().print();
    programs(8, Some(1.12)).print();
    programs(64, None).print();
    always_refused().print();
    steady().print();
}

fn at_once(what: &str, requests: usize, most: f64, refusals: Option<u64>) -> Sheet {
    let case = Case { deed: Deed::AtOnce(requests), rounds: 15, ..Case::new(what) };
    let (mut sheet, [bare, mutex, reauth]) = case.against([Peer::Bare, Peer::Mutex, Peer::Reauth]);
    let ratio = reauth.ms() / mutex.ms();
    let is_spared = refusals.is_none_or(|most| reauth.unauthorized <= most);
    let spared = refusals.map(|most| format!(", ≤ {most} × 401")).unwrap_or_default();
    sheet.claims.push(Claim {
        what: what.to_owned(),
        figure: format!("{}, {ratio:.2} × the mutex's time", reauth.told()),
        goal: format!("1 refresh, 0 failed{spared}, ≤ {most:.2} × the mutex's time"),
        is_met: reauth.is_one_refresh_for(requests) && is_spared && ratio <= most,
        peer: format!("{}; at best {:.2} × its time", mutex.told(), bare.ms() / mutex.ms()),
    });
    sheet
}

/// All are sent before the first one is answered, and the answers come one by one.
fn late() -> Sheet {
    let what = "100 refusals that come over 400 ms";
    let case = Case {
        deed: Deed::AtOnce(100),
        prepare: |server| {
            server.barrier(Route::Api, 100);
            for n in 0..100 {
                server.on_next(Route::Api, 1, Fault::Delay(Duration::from_millis(4 * n)));
            }
        },
        ..Case::new(what)
    };
    let (mut sheet, [_, mutex, reauth]) = case.against([Peer::Bare, Peer::Mutex, Peer::Reauth]);
    sheet.claims.push(Claim {
        what: what.to_owned(),
        figure: reauth.told(),
        goal: "1 refresh, 0 failed".to_owned(),
        is_met: reauth.is_one_refresh_for(100),
        peer: mutex.told(),
    });
    sheet
}

fn first_dropped() -> Sheet {
    let what = "the first caller is dropped in the middle of the refresh, 50 wait";
    let takes = Duration::from_millis(200);
    let case = Case { deed: Deed::DropFirst(50), takes, ..Case::new(what) };
    let (mut sheet, [mutex, reauth]) = case.against([Peer::Mutex, Peer::Reauth]);
    let ratio = reauth.ms() / ms(takes);
    let freed = |measured: &Measured| format!("freed after {:.1} ms", ms(measured.freed));
    sheet.claims.push(Claim {
        what: what.to_owned(),
        figure: format!("{}, {ratio:.2} × the refresh, {}", reauth.told(), freed(&reauth)),
        goal: "1 refresh, 0 failed, ≤ 1.03 × the refresh, freed at once".to_owned(),
        is_met: reauth.is_one_refresh_for(50) && ratio <= 1.03 && ms(reauth.freed) < 5.0,
        peer: format!("{}, {}", mutex.told(), freed(&mutex)),
    });
    sheet
}

fn failing() -> Sheet {
    let what = "a refresh that fails, 50 wait";
    let case = Case {
        deed: Deed::AtOnce(50),
        prepare: |server| {
            let busy = Fault::status(503).header("retry-after", "1");
            server.on_next(Route::Token, 1000, busy.after(Duration::from_millis(200)));
        },
        takes: Duration::ZERO,
        rounds: 1,
        ..Case::new(what)
    };
    let (mut sheet, [mutex, reauth]) = case.against([Peer::Mutex, Peer::Reauth]);
    let told = |measured: &Measured| {
        let (posts, ms) = (measured.token_requests, measured.ms());
        format!("{} failed, {} after {ms:.0} ms", measured.failed, many(posts, "token request"))
    };
    sheet.claims.push(Claim {
        what: what.to_owned(),
        figure: told(&reauth),
        goal: "1 token request, all fail with it".to_owned(),
        is_met: reauth.token_requests == 1 && reauth.failed == 50,
        peer: told(&mutex),
    });
    sheet
}

fn programs(count: usize, most: Option<f64>) -> Sheet {
    let what = format!("{count} programs, 50 requests each, on a stale token");
    let case = Case { deed: Deed::AtOnce(50), programs: count, rounds: 5, ..Case::new(&what) };
    let (mut sheet, [bare, mutex, reauth]) = case.against([Peer::Bare, Peer::Mutex, Peer::Reauth]);
    let ratio = reauth.ms() / bare.ms();
    let goal = most.map(|most| format!(", ≤ {most:.2} × two waves")).unwrap_or_default();
    sheet.claims.push(Claim {
        what,
        figure: format!("{}, {ratio:.2} × two waves", reauth.told()),
        goal: format!("1 refresh, 0 failed{goal}"),
        is_met: reauth.is_one_refresh_for(count * 50) && most.is_none_or(|most| ratio <= most),
        peer: mutex.told(),
    });
    sheet
}

fn always_refused() -> Sheet {
    let what = "100 requests, one after the other, to what refuses every token";
    let case = Case {
        deed: Deed::Refused(100),
        takes: Duration::ZERO,
        prepare: |server| server.refuse_path("/api/refused"),
        is_stale: false,
        rounds: 1,
        ..Case::new(what)
    };
    let (mut sheet, [mutex, reauth]) = case.against([Peer::Mutex, Peer::Reauth]);
    let told = |measured: &Measured| many(measured.token_requests, "refresh");
    sheet.claims.push(Claim {
        what: what.to_owned(),
        figure: told(&reauth),
        goal: "2 at most".to_owned(),
        is_met: reauth.token_requests <= 2,
        peer: told(&mutex),
    });
    sheet
}

fn steady() -> Sheet {
    let what = "20 expiries under steady load, 500 requests a second";
    let case = Case { deed: Deed::Steady, is_stale: false, rounds: 1, ..Case::new(what) };
    let names = ["", "failed", "401s", "refreshes", "p50", "p99", "max", "p99 ratio"];
    let mut sheet = Sheet::new(format!("{what}: milliseconds that callers wait"), names);
    let mut ratios = Vec::new();
    for peer in [Peer::Mutex, Peer::Reauth] {
        let measured = case.measure(peer);
        let [ending, lasting] = measured.latencies.expect("of a steady load");
        let ratio = ms(ending.p99) / ms(lasting.p99);
        let times =
            |of: steady::Latencies| [of.p50, of.p99, of.max].map(|t| format!("{:.2}", ms(t)));
        let counts = [measured.failed as u64, measured.unauthorized, measured.token_requests];
        let cells = [vec![case::name(peer)], counts.map(|n| n.to_string()).into()];
        let [p50, p99, max] = times(ending);
        sheet.row(cells.concat().into_iter().chain([p50, p99, max, format!("{ratio:.2}")]));
        let [p50, p99, max] = times(lasting);
        let none = ["   its token lasts", "0", "0", "0"].map(str::to_owned);
        sheet.row(none.into_iter().chain([p50, p99, max, "1.00".to_owned()]));
        ratios.push((measured, ratio, ms(ending.max)));
    }
    let told = |(measured, ratio, max): &(Measured, f64, f64)| {
        let (refusals, refreshes) = (measured.unauthorized, measured.token_requests);
        format!("{refreshes} refreshes, {refusals} × 401, p99 {ratio:.2} ×, max {max:.1} ms")
    };
    let [mutex, reauth] = [&ratios[0], &ratios[1]];
    sheet.claims.push(Claim {
        what: what.to_owned(),
        figure: told(reauth),
        goal: "no 401, p99 ≤ 1.05 × that of a token that lasts".to_owned(),
        is_met: reauth.0.unauthorized == 0
            && reauth.0.failed == 0
            && reauth.0.token_requests >= 20
            && reauth.1 <= 1.05,
        peer: told(mutex),
    });
    sheet
}

fn many(count: u64, what: &str) -> String {
    match (count, what) {
        (1, what) => format!("1 {what}"),
        (count, "refresh") => format!("{count} refreshes"),
        (count, what) => format!("{count} {what}s"),
    }
}

fn ms(time: impl Into<Option<Duration>>) -> f64 {
    time.into().unwrap_or_default().as_secs_f64() * 1000.0
}
