use crate::harness::*;

#[tokio::test]
async fn the_first_decides_and_the_others_are_told() {
    let f = Fixture::new().await;
    for asked in ["2", "16", "2"] {
        let keys = vec![format!("{}:1:layout", f.config.key_prefix)];
        let replies = f.try_raw("layout", keys, vec![asked.to_owned()]).await;
        let reply = replies.expect("the script runs").remove(0);
        assert_eq!(
            (reply.tag.as_str(), reply.int(0)),
            ("layout", u64::from(PARTITIONS))
        );
    }
}
