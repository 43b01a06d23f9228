//! Whether what Redis stores of a pool agrees with itself: records, free set, counts and wheel.

use fred::interfaces::LuaInterface;
use tokend::token::PoolName;

use crate::harness::Fixture;

/// # Panics
/// When the free set, the counts or the wheel do not say what the records say.
pub async fn audit(fixture: &Fixture, pool: &PoolName) {
    let prelude = include_str!("../../../lua/prelude.lua");
    let source = format!(
        "#!lua flags=no-writes\n{prelude}\n{}",
        include_str!("audit.lua")
    );
    for prefix in fixture.prefixes().await {
        let keys = vec![prefix.clone(), format!("{prefix}:guard")];
        let args = vec![pool.as_str().to_owned()];
        let found: Vec<String> = fixture
            .redis
            .eval(source.as_str(), keys, args)
            .await
            .expect("audit");
        assert!(found.is_empty(), "{pool} in {prefix}: {found:?}");
    }
}
