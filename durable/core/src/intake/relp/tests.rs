use super::*;

#[test]
fn after_the_last_number_comes_1() {
    let mut server = Server::new(Limits { max_message_bytes: 64, oversize: Oversize::Truncate });
    let (mut received, mut out) = (Vec::new(), Vec::new());
    assert_eq!(server.feed(b"1 open 0\n", &mut received, &mut out), Ok(()));
    server.next = LAST;
    assert_eq!(server.feed(b"999999999 syslog 1 a\n1 syslog 1 b\n", &mut received, &mut out), Ok(()));
    let transactions: Vec<u32> = received.iter().map(|message| message.transaction).collect();
    assert_eq!(transactions, [999_999_999, 1]);
}
