use proptest::prelude::*;

use super::*;

/// Writes messages, as the documentation has them.
#[derive(Default)]
pub(in crate::feed::wal) struct Writer(Vec<u8>);

impl Writer {
    fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    fn u16(mut self, number: u16) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn u32(mut self, number: u32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn u64(mut self, number: u64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn name(mut self, name: &str) -> Self {
        self.0.extend(name.as_bytes());
        self.byte(0)
    }

    fn cells(self, cells: &[Cell<'_>]) -> Self {
        cells.iter().fold(self.u16(cells.len() as u16), |writer, cell| match cell {
            Cell::Null => writer.byte(b'n'),
            Cell::Unchanged => writer.byte(b'u'),
            Cell::Text(text) => {
                let mut writer = writer.byte(b't').u32(text.len() as u32);
                writer.0.extend_from_slice(text);
                writer
            }
            Cell::Binary => writer.byte(b'b').u32(2).u16(7),
        })
    }

    fn old(self, old: &OldRow<'_>) -> Self {
        self.byte(if old.is_whole { b'O' } else { b'K' }).cells(&old.cells)
    }
}

/// The bytes of a message.
pub(in crate::feed::wal) fn written(message: &Message<'_>) -> Vec<u8> {
    let writer = Writer::default();
    let writer = match message {
        Message::Begin { committed_micros, xid } => writer.byte(b'B').u64(9).u64(*committed_micros as u64).u32(*xid),
        Message::Commit { end } => writer.byte(b'C').byte(0).u64(8).u64(*end).u64(7),
        Message::Relation { oid, relation } => relation.columns.iter().fold(
            writer
                .byte(b'R')
                .u32(*oid)
                .name(if relation.schema == "pg_catalog" { "" } else { &relation.schema })
                .name(&relation.name)
                .byte(b'd')
                .u16(relation.columns.len() as u16),
            |writer, column| {
                writer.byte(column.in_identity.into()).name(&column.name).u32(column.type_oid).u32(u32::MAX)
            },
        ),
        Message::Row { relation, change } => match change {
            RowChange::Insert { new } => writer.byte(b'I').u32(*relation).byte(b'N').cells(new),
            RowChange::Update { old, new } => {
                let writer = writer.byte(b'U').u32(*relation);
                let writer = old.iter().fold(writer, Writer::old);
                writer.byte(b'N').cells(new)
            }
            RowChange::Delete { old } => writer.byte(b'D').u32(*relation).old(old),
        },
        Message::Truncate { relations } => relations
            .iter()
            .fold(writer.byte(b'T').u32(relations.len() as u32).byte(0), |writer, relation| writer.u32(*relation)),
        Message::Other => writer.byte(b'Y').u32(1).name("public").name("mood"),
    };
    writer.0
}

#[test]
fn what_carries_no_change_of_a_row_is_read_to_its_end() {
    let origin = Writer::default().byte(b'O').u64(1).name("somewhere").0;
    let message = Writer::default().byte(b'M').byte(1).u64(1).name("app").u32(2).u16(7).0;
    for mut bytes in [origin, message, written(&Message::Other)] {
        assert_eq!(Message::read(&bytes), Ok(Message::Other));
        bytes.push(0);
        assert_eq!(Message::read(&bytes), Err(MessageError::Rest(1)));
    }
}

#[test]
fn each_fault_has_its_name() {
    let row = |kind: u8| Writer::default().byte(b'I').u32(1).byte(kind);
    for (writer, error) in [
        (Writer::default(), MessageError::Short),
        (Writer::default().byte(b'S').u32(1).byte(1), MessageError::Kind(b'S')),
        (Writer::default().byte(b'B').u32(1), MessageError::Short),
        (row(b'K'), MessageError::Row(b'K')),
        (row(b'N').u16(1).byte(b'x'), MessageError::Cell(b'x')),
        (row(b'N').u16(1).byte(b't').u32(u32::MAX), MessageError::Length),
        (row(b'N').u16(1).byte(b't').u32(2).byte(1), MessageError::Short),
        (row(b'N').u16(u16::MAX), MessageError::Short),
        (Writer::default().byte(b'T').u32(1 << 30).byte(0), MessageError::Short),
        (Writer::default().byte(b'Y').u32(1).byte(0xff).byte(0).byte(0), MessageError::Name),
        (Writer::default().byte(b'Y').u32(1).byte(b'a'), MessageError::Short),
    ] {
        assert_eq!(Message::read(&writer.0), Err(error), "{:?}", writer.0);
    }
    assert_eq!(MessageError::Kind(b'S').to_string(), "`S` is no kind of message that was asked for");
}

fn cell() -> impl Strategy<Value = Cell<'static>> {
    let texts: [&'static [u8]; 3] = [b"", b"42", b"\xff\0t"];
    prop_oneof![
        Just(Cell::Null),
        Just(Cell::Unchanged),
        Just(Cell::Binary),
        prop::sample::select(texts.to_vec()).prop_map(Cell::Text)
    ]
}

fn message() -> impl Strategy<Value = Message<'static>> {
    let cells = || prop::collection::vec(cell(), 0..4);
    let old = || (any::<bool>(), cells()).prop_map(|(is_whole, cells)| OldRow { is_whole, cells });
    let row = prop_oneof![
        cells().prop_map(|new| RowChange::Insert { new }),
        (prop::option::of(old()), cells()).prop_map(|(old, new)| RowChange::Update { old, new }),
        old().prop_map(|old| RowChange::Delete { old }),
    ];
    let column = ("[a-zé]{0,4}", any::<u32>(), any::<bool>()).prop_map(|(name, type_oid, in_identity)| Column {
        name,
        type_oid,
        in_identity,
    });
    let relation = ("[a-z]{1,4}|pg_catalog", "[a-z]{0,4}", prop::collection::vec(column, 0..4))
        .prop_map(|(schema, name, columns)| Relation { schema, name, columns });
    prop_oneof![
        (any::<i64>(), any::<u32>()).prop_map(|(committed_micros, xid)| Message::Begin { committed_micros, xid }),
        any::<u64>().prop_map(|end| Message::Commit { end }),
        (any::<u32>(), relation).prop_map(|(oid, relation)| Message::Relation { oid, relation }),
        (any::<u32>(), row).prop_map(|(relation, change)| Message::Row { relation, change }),
        prop::collection::vec(any::<u32>(), 0..4).prop_map(|relations| Message::Truncate { relations }),
        Just(Message::Other),
    ]
}

proptest! {
    #[test]
    fn a_message_is_read_as_it_was_written_and_no_part_of_it_is_one(message in message(), cut in any::<prop::sample::Index>()) {
        let bytes = written(&message);
        prop_assert_eq!(Message::read(&bytes), Ok(message));
        let part = &bytes[..cut.index(bytes.len())];
        prop_assert!(Message::read(part).is_err());
    }

    #[test]
    fn any_bytes_are_taken_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..60), message in message(), at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let _read = Message::read(&bytes);
        let mut damaged = written(&message);
        let at = at.index(damaged.len());
        damaged[at] = byte;
        let _read = Message::read(&damaged);
    }
}
