//! What an endpoint reports about agents that come and go.

use super::world::{Server, UID, agent, within};

#[tokio::test]
async fn a_change_names_the_agent_whose_instances_can_be_asked_for_alone() {
    within(async {
        let server = Server::start(1).await;
        let _agents = ["0", "pi4"].map(|name| agent(server.address, name, 1));
        let names = |uid: &str| -> Vec<String> {
            server.endpoint.instances_of(uid).into_iter().map(|view| view.instance).collect()
        };
        while names(UID) != ["0", "pi4"] {
            assert!(server.endpoint.changed().await.iter().eq([UID]));
        }
        assert_eq!(server.endpoint.instances_of(UID).len(), server.endpoint.agents().len());
        assert!(names("").is_empty() && names("0").is_empty() && names("b").is_empty(), "other agents");
    })
    .await;
}
