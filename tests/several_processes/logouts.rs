//! A logout in one program while another one refreshes: logged out is logged out.

use std::thread;
use std::time::Duration;

use mock_server::{Issued, Route};

use crate::holder::{Holder, Point, points};
use crate::home::{Home, Kept};
use crate::keychain::in_a_session;
use crate::worker::SERVICE;

/// All at once: a logout waits 5 seconds for its turn.
async fn logged_out_at_every_step(kept: Kept, is_empty: impl Fn(&Home) -> bool) {
    let mut homes = Vec::new();
    for point in points(kept) {
        let home = Home::new(kept);
        let issued = home.log_in_long_ago().await;
        homes.push((point, home, issued));
    }
    let failed: Vec<_> = thread::scope(|scope| {
        let mut tests = Vec::new();
        for (point, home, issued) in &homes {
            tests.push((*point, scope.spawn(|| log_out_at(*point, home, issued))));
        }
        let joined = tests.into_iter().map(|(point, test)| (point, test.join()));
        joined.filter(|(_, result)| result.is_err()).map(|(point, _)| point).collect()
    });
    assert_eq!(failed, []);
    for (point, home, _) in homes {
        assert!(is_empty(&home), "{point:?}");
        assert!(!home.is_logged_in().await, "{point:?}");
        assert_eq!(home.start().get(), "logged out", "{point:?}");
        assert_eq!(home.server.counters().api_ok, 0, "{point:?}: nobody got in");
    }
}

fn log_out_at(point: Point, home: &Home, issued: &Issued) {
    let mut holder = Holder::at(point, home);
    let mut other = home.start();
    let outcome = other.ask("log out");
    let expected = if point.is_locked() { ["Revoked", "Pending"] } else { ["Revoked"; 2] };
    assert!(expected.contains(&outcome.as_str()), "{point:?}: {outcome}");
    // What it has left to do, others do.
    other.kill();

    holder.release(home);
    let outcome = holder.worker.line();
    // It had its new token before the logout, and the server refuses that. It may have looked at
    // the store just before.
    if is_published(point) && outcome == "401" {
        thread::sleep(Duration::from_millis(1050));
        assert_eq!(holder.worker.get(), "logged out: LoggedOutElsewhere", "{point:?}");
    } else {
        assert_eq!(outcome, "logged out: LoggedOutElsewhere", "{point:?}");
    }
    holder.worker.end();
    assert!(!home.server.family_alive(issued.family), "{point:?}");
    if is_rotated(point) {
        let newest = revoked(home).into_iter().filter(|token| *token != issued.refresh_token);
        let families: Vec<_> = newest.map(|token| home.server.family_of(&token)).collect();
        assert_eq!(families, [Some(issued.family)], "{point:?}: the late tokens are revoked");
    }
}

/// Whether the server had rotated before the logout.
fn is_rotated(point: Point) -> bool {
    let before = ["waiting", "locked", "read", "marked"].map(Point::Step);
    !before.contains(&point) && point != Point::Sent
}

fn is_published(point: Point) -> bool {
    point == Point::Step("published") || point == Point::Step("unlocked")
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

#[tokio::test]
async fn a_logout_at_any_step_of_a_refresh_elsewhere_wins_with_a_file() {
    logged_out_at_every_step(Kept::InAFile, |home| !home.program.file.as_ref().unwrap().exists())
        .await;
}

#[test]
fn a_logout_at_any_step_of_a_refresh_elsewhere_wins_with_the_keychain() {
    in_a_session(
        "logouts::a_logout_at_any_step_of_a_refresh_elsewhere_wins_with_the_keychain",
        async |keychain| {
            logged_out_at_every_step(Kept::InTheKeychain, |home| {
                let entries = keychain.entries(SERVICE);
                entries.iter().all(|(user, _)| !user.starts_with(&home.program.account))
            })
            .await;
        },
    );
}
