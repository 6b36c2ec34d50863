//! The application of `examples/tool_library.rs` runs unchanged, and prints the same, on every backend.

use super::super::nodes::Nodes;

#[allow(dead_code, reason = "its main is of no use here")]
#[path = "../../../examples/tool_library.rs"]
mod tool_library;

async fn week(backend: &str) -> String {
    let storage = tool_library::open(backend).await.unwrap();
    let mut out = Vec::new();
    for _ in 0..2 {
        // Also where it has run before.
        out.clear();
        tool_library::run(storage.clone(), &mut out).await.unwrap();
    }
    String::from_utf8(out).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_prints_the_same_on_every_backend() {
    let expected = "Monday: the street has 4 tools\n  another drill? value exists already: drill in namespace tools\n\
                    Tuesday: Barbara takes the drill; Edsger would like it, too, but Barbara has it\n  he asks for a crane, but \
                    nobody here has such a thing\nWednesday: all want the ladder; 1 gets it, 4 are told who has it\nThursday: \
                    Barbara brings the drill back; twice she cannot: somebody else has it\nFriday: the drill was with Barbara, \
                    then with Edsger, then with Donald\nSaturday: everything is back\n  drill, of Alan: borrowed 3 times; \
                    {\"shelf\":\"cellar\"}\n  ladder, of Ada: borrowed 1 times; {\"shelf\":\"garage\"}\n  saw, of Grace: borrowed 0 \
                    times; {\"shelf\":\"shed\"}\n  spade, of Ada: borrowed 0 times; {\"shelf\":\"shed\"}\n";
    assert_eq!(week("memory").await, expected);
    #[cfg(feature = "sqlite")]
    {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(week(&format!("sqlite:{}", home.path().join("tools.db").display())).await, expected);
    }
    let nodes = Nodes::start(1, "sled").await;
    assert_eq!(week(&format!("meshstore://{}", nodes.endpoints[0])).await, expected);
    nodes.stop().await;
    assert!(tool_library::open("postgres://").await.is_err());
}
