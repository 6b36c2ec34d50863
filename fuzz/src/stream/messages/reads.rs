//! What is read of messages: each wholly, in chunks, and in lists.

use super::*;

impl Case {
    /// That a message is there, and all of its content.
    pub(super) fn whole(&self, view: &View, id: &str) {
        let kept = &self.messages[id];
        let (stored, content) = large::get(view, id).expect("it is there");
        assert_eq!((stored.mod_revision, stored.updated_at_ms), (kept.revision, kept.stored_ms));
        let told = stored.value.large.expect("of what it consists");
        let whole = &kept.message.content;
        assert_eq!((told.size, told.crc32c), (whole.len() as u64, crc32c::crc32c(whole)));
        let header = read_header(ReadStamp { revision: view.revision(), age_ms: 2 }, 3);
        let first = sent(&v1::ReadLargeMessageResponse::from((header, stored.clone())));
        assert_eq!(frames::first_frame(first), Ok((header, stored.clone())));
        let mut joined = Vec::new();
        for number in 0..told.chunks {
            let chunk = large::chunk_of(view, id, &content, number).expect("all of it is there");
            assert_eq!((chunk.number, chunk.crc32c), (number, crc32c::crc32c(&chunk.data)));
            joined.extend_from_slice(&chunk.data);
            assert_eq!(frames::next_chunk(sent(&v1::ReadLargeMessageResponse::from(chunk.clone()))), Ok(chunk));
        }
        assert_eq!(joined, *whole);
        assert_eq!(content, kept.upload.map_or_else(|| Content::Whole(whole.clone()), Content::Upload));
        let message = Message { large: None, content: whole.clone(), ..stored.value };
        assert_eq!(message, kept.message);
        assert_eq!(message::get(view, id).map(|stored| stored.value), Ok(self.shown(kept)));
    }

    /// A message as lists show it.
    pub(super) fn shown(&self, kept: &Kept) -> Message {
        let content = &kept.message.content;
        let large = LargeContent { size: content.len() as u64, chunks: kept.chunks, crc32c: crc32c::crc32c(content) };
        match kept.upload {
            Some(_) => Message { content: Bytes::new(), large: Some(large), ..kept.message.clone() },
            None => kept.message.clone(),
        }
    }

    /// That every message is there, and of the uploads that are open whatever has arrived.
    pub(super) fn all_whole(&self) {
        let view = self.replica.view();
        for id in self.messages.keys() {
            self.whole(&view, id);
        }
        for upload in self.uploads.iter().filter(|upload| upload.open) {
            for (number, data) in &upload.arrived {
                let chunk = large::chunk_of(&view, "", &Content::Upload(upload.id), *number);
                assert_eq!(chunk.map(|chunk| chunk.data).as_ref(), Ok(data));
            }
        }
    }

    pub(super) fn begin_to_read(&mut self, input: &mut Input<'_>) {
        let id = id(input);
        match large::get(&self.replica.view(), &id) {
            Ok((_, content)) => self.reading = Some((self.messages[&id].clone(), content)),
            Err(error) => {
                assert!(!self.messages.contains_key(&id));
                refused(&error);
            }
        }
    }

    /// What is read later is of the same version, or there no longer.
    pub(super) fn go_on_reading(&mut self, input: &mut Input<'_>) {
        let Some((kept, content)) = &self.reading else { return };
        let number = u32::from(input.byte() & 3);
        let Some(upload) = kept.upload.filter(|_| number < kept.chunks) else { return };
        let named = self.messages.values().any(|kept| kept.upload == Some(upload));
        match large::chunk_of(&self.replica.view(), &kept.message.id, content, number) {
            Ok(chunk) => {
                let whole = kept.message.content.as_ref();
                assert!(whole.windows(chunk.data.len()).any(|part| part == chunk.data), "{chunk:?} of {whole:?}");
            }
            Err(error) => {
                assert!(!named && matches!(error, Error::Conflict(_)), "{error:?}");
                told(&error);
            }
        }
    }

    pub(super) fn list(&self, input: &mut Input<'_>) {
        let choice = |input: &mut Input<'_>| input.flag().then(|| BOXES[input.below(BOXES.len())].to_owned());
        let filter = MessageFilter {
            from: choice(input),
            to: choice(input),
            since: input.flag().then(|| TIMES[input.below(TIMES.len())]),
            until: input.flag().then(|| TIMES[input.below(TIMES.len())]),
        };
        self.listed(&filter, 1 + u32::from(input.byte() % 3));
    }

    pub(super) fn listed(&self, filter: &MessageFilter, limit: u32) {
        let view = self.replica.view();
        let mut expected: Vec<Message> = self.messages.values().map(|kept| self.shown(kept)).collect();
        expected.retain(|message| filter.selects(message));
        expected.sort_by(|a, b| (a.timestamp, &a.id).cmp(&(b.timestamp, &b.id)));
        let (mut found, mut page) = (Vec::new(), PageRequest { limit, cursor: String::new() });
        loop {
            let listed = message::list(filter, &page).and_then(|list| list.read(&view)).expect("a page");
            found.extend(listed.items.into_iter().map(|stored| stored.value));
            page.cursor = listed.next_cursor;
            if page.cursor.is_empty() {
                break;
            }
        }
        assert_eq!(found, expected, "{filter:?}");
    }
}
