use fred::prelude::*;

use crate::harness::*;

#[tokio::test]
async fn the_first_decides_and_the_others_are_told() {
    let f = Fixture::new().await;
    for asked in ["2", "16", "2"] {
        let keys = vec![format!("{}:1:layout", f.config.key_prefix)];
        let replies = f.try_raw("layout", keys, vec![asked.to_owned()]).await;
        let reply = replies.expect("the script runs").remove(0);
        assert_eq!(reply.tag, "layout");
        assert_eq!((reply.int(0), reply.int(1)), (u64::from(PARTITIONS), 0));
    }
}

#[tokio::test]
async fn a_data_set_that_has_moved_on_says_where_to() {
    let f = Fixture::new().await;
    let layout = format!("{}:1:layout", f.config.key_prefix);
    let _: () = f
        .redis
        .hset(&layout, ("superseded_by", 2))
        .await
        .expect("HSET");
    let replies = f
        .try_raw("layout", vec![layout], vec!["2".to_owned()])
        .await;
    let reply = replies.expect("the script runs").remove(0);
    assert_eq!((reply.int(0), reply.int(1)), (u64::from(PARTITIONS), 2));
}
