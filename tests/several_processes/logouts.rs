//! A logout in one program while another one refreshes: logged out is logged out.

use std::thread;
use std::time::Duration;

use mock_server::{Issued, Route};

use crate::holder::{Holder, Point, points};
use crate::home::{Home, Kept};
use crate::keychain::{Keychain, in_a_session};
use crate::worker::SERVICE;

/// What becomes of the program that logs out, once it has done so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It comes to its end, and waits there for what is left to do.
    Ends,
    /// What it had left to do, others do.
    IsKilled,
}

/// All at once: a logout waits 5 seconds for its turn.
async fn logged_out_at_every_step(kept: Kept, then: Then, is_empty: impl Fn(&Home) -> bool) {
    let mut homes = Vec::new();
    for point in points(kept) {
        // Nobody is left to do it.
        if then == Then::IsKilled && is_published(point) {
            continue;
        }
        let home = Home::new(kept);
        let issued = home.log_in_long_ago().await;
        homes.push((point, home, issued));
    }
    let failed: Vec<_> = thread::scope(|scope| {
        let mut tests = Vec::new();
        for (point, home, issued) in &homes {
            tests.push((*point, scope.spawn(|| log_out_at(*point, then, home, issued))));
        }
        let joined = tests.into_iter().map(|(point, test)| (point, test.join()));
        joined.filter(|(_, result)| result.is_err()).map(|(point, _)| point).collect()
    });
    assert_eq!(failed, []);
    for (point, home, _) in homes {
        assert!(is_empty(&home), "{point:?}");
        assert!(!home.is_logged_in().await, "{point:?}");
        assert_eq!(home.start().get(), "logged out", "{point:?}");
    }
}

fn log_out_at(point: Point, then: Then, home: &Home, issued: &Issued) {
    let mut holder = Holder::at(point, home);
    let mut other = home.start();
    let outcome = other.ask("log out");
    let expected = if point.is_locked() { ["Revoked", "Pending"] } else { ["Revoked"; 2] };
    assert!(expected.contains(&outcome.as_str()), "{point:?}: {outcome}");
    if then == Then::IsKilled {
        other.kill();
        holder.release(home);
    } else {
        holder.release(home);
        other.end();
    }

    let outcome = holder.worker.line();
    if is_published(point) {
        // It had its new token before the logout, and sent it then or was refused.
        thread::sleep(Duration::from_millis(1050));
        assert!(holder.worker.get().starts_with("logged out"), "{point:?}: first {outcome}");
    } else {
        assert_eq!(outcome, "logged out: LoggedOutElsewhere", "{point:?}");
        assert_eq!(home.server.counters().api_ok, 0, "{point:?}: nobody gets in");
    }
    holder.worker.end();
    if then == Then::Ends {
        assert!(!home.server.family_alive(issued.family), "{point:?}");
    }
    if is_rotated(point) {
        let mut newest = revoked(home).into_iter().filter(|token| *token != issued.refresh_token);
        let is_ours = newest.any(|token| home.server.family_of(&token) == Some(issued.family));
        assert!(is_ours, "{point:?}: the late tokens are revoked");
    }
}

/// Whether the server had rotated before the logout.
fn is_rotated(point: Point) -> bool {
    let before = ["waiting", "locked", "read", "marked"].map(Point::Step);
    !before.contains(&point) && point != Point::Sent
}

/// Whether its waiters may have had the new token before the logout.
fn is_published(point: Point) -> bool {
    ["published", "unlocked"].map(Point::Step).contains(&point)
}

/// The tokens that the server was told to revoke.
fn revoked(home: &Home) -> Vec<String> {
    let requests = home.server.requests(Route::Revoke);
    let token = |body: &[u8]| {
        let mut fields = form_urlencoded::parse(body);
        fields.find(|(name, _)| name == "token").unwrap().1.into_owned()
    };
    requests.iter().map(|request| token(&request.body)).collect()
}

async fn with_a_file(then: Then) {
    let is_empty = |home: &Home| !home.program.file.as_ref().unwrap().exists();
    logged_out_at_every_step(Kept::InAFile, then, is_empty).await;
}

async fn with_the_keychain(keychain: Keychain, then: Then) {
    let is_empty = |home: &Home| {
        let entries = keychain.entries(SERVICE);
        entries.iter().all(|(user, _)| !user.starts_with(&home.program.account))
    };
    logged_out_at_every_step(Kept::InTheKeychain, then, is_empty).await;
}

#[tokio::test]
async fn a_logout_at_any_step_of_a_refresh_elsewhere_wins_with_a_file() {
    with_a_file(Then::Ends).await;
}

#[tokio::test]
async fn a_logout_wins_though_its_program_is_killed_with_a_file() {
    with_a_file(Then::IsKilled).await;
}

#[test]
fn a_logout_at_any_step_of_a_refresh_elsewhere_wins_with_the_keychain() {
    in_a_session(
        "logouts::a_logout_at_any_step_of_a_refresh_elsewhere_wins_with_the_keychain",
        async |keychain| with_the_keychain(keychain, Then::Ends).await,
    );
}

#[test]
fn a_logout_wins_though_its_program_is_killed_with_the_keychain() {
    in_a_session(
        "logouts::a_logout_wins_though_its_program_is_killed_with_the_keychain",
        async |keychain| with_the_keychain(keychain, Then::IsKilled).await,
    );
}
