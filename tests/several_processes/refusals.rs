//! Programs whose token is refused though it is not over.

use mock_server::Route;

use crate::home::{Home, Kept};
use crate::keychain::in_a_session;

async fn two_on_one_fresh_token(kept: Kept) {
    let home = Home::new(kept);
    home.log_in().await;
    let mut programs = [home.start(), home.start()];
    for program in &mut programs {
        assert_eq!(program.get(), "200");
    }
    home.server.expire_access_tokens();
    // Both have it refused before either does something about it.
    home.server.barrier(Route::Api, 2);
    for program in &mut programs {
        program.tell("get 1");
    }
    for program in &programs {
        assert_eq!(program.line(), "200");
    }
    assert_eq!(home.exchanges(), (1, 1, 0, 0));
    let counters = home.server.counters();
    assert_eq!((counters.api_ok, counters.api_unauthorized), (4, 2));
}

#[tokio::test]
async fn two_programs_whose_fresh_token_is_refused_make_one_refresh_with_a_file() {
    two_on_one_fresh_token(Kept::InAFile).await;
}

#[test]
fn two_programs_whose_fresh_token_is_refused_make_one_refresh_with_the_keychain() {
    in_a_session(
        "refusals::two_programs_whose_fresh_token_is_refused_make_one_refresh_with_the_keychain",
        async |_keychain| two_on_one_fresh_token(Kept::InTheKeychain).await,
    );
}
