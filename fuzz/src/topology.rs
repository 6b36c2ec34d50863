//! Changes of the definition of meshes: a case is a script of requests, of time that passes, and of reads.
//!
//! Whatever comes, after each step: who was refused has changed nothing; a change is in the history once, with what
//! really became of each item; what is shown is sound, and what was shown at any revision can be had again; a mesh applied
//! as it is shown is no change; and all of it comes out of the wire as it went in. A change that was decided on what is no
//! longer so changes nothing.

mod choose;
mod items;
mod wish;

use std::{collections::BTreeMap, rc::Rc};

use meshstore::{
    Error,
    layers::{
        Decided, Write,
        topology::{self as layer, Draft, applied, confirm, history, show},
    },
    model::{
        Outcome,
        mesh::PageRequest,
        proposal::Action,
        topology::{Applied, Cause, Change, Edit, HistoryEntry, Item, ItemKind, MeshTopology, Pending, Selector},
    },
    proto::{self, v1},
    state::View,
};

use self::{
    choose::Choice,
    items::{Items, difference, export, listed, pages, shown, sound, told_entry, told_item},
    wish::{Decision, Made, Wish},
};
use super::{
    input::Input,
    replica::Replica,
    wire::{answer, decoded, sent, told},
};

/// Steps of a case: more bytes say nothing.
const STEPS: usize = 32;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let begin = input.byte();
    let mut case = prepared(usize::from(begin >> 6));
    case.limit = 1 + u32::from(begin % 4);
    let before = case.replica.revision();
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        case.step(&mut input);
    }
    // Where nothing was written there is nothing to find.
    if case.replica.revision() > before {
        case.end();
    }
}

/// What a change that waits is known to be.
#[derive(Clone)]
struct Waiting {
    revision: u64,
    pending: Pending,
    due_ms: u64,
}

/// The store, and what it must show.
#[derive(Clone, Default)]
struct Case {
    replica: Replica,
    made: Made,
    /// Items of a page.
    limit: u32,
    items: Items,
    /// What was shown from a revision on.
    past: Vec<(u64, Items)>,
    entries: Vec<HistoryEntry>,
    /// Of each item: the revisions that created and changed it, and its version.
    versions: BTreeMap<String, (u64, u64, u64)>,
    waiting: Option<Waiting>,
    /// What nodes have reported, and when.
    reports: BTreeMap<String, (u64, u64)>,
    identities: BTreeMap<u64, String>,
}

/// Where a case begins: with nothing; with a few meshes; with a history of them; and with a change that waits.
fn prepared(choice: usize) -> Case {
    thread_local! {
        static PREPARED: [Case; 4] = std::array::from_fn(prepare);
    }
    PREPARED.with(|prepared| prepared[choice].clone())
}

/// The name of a mesh, those of its nodes, and which routes it has.
type Described<'a> = (&'a str, &'a [&'a str], &'a [usize]);

fn prepare(much: usize) -> Case {
    let mut case = Case { limit: 4, ..Case::default() };
    let changes: [&[Described<'_>]; 4] = [
        &[],
        &[("a", &["a", "ab", "b"], &[0, 1, 2]), ("b", &["a/"], &[])],
        &[("a", &["a"], &[]), ("b", &["a/", "b"], &[1]), ("a", &["a", "ab", "a\0"], &[0, 5]), ("b", &["a/"], &[])],
        &[("a", &["a", "b"], &[0]), ("b", &["ab", "a/"], &[0]), ("a", &["b", "a\0b"], &[1])],
    ];
    for (number, (mesh, nodes, routes)) in changes[much].iter().enumerate() {
        let waits = much == 3 && number == 2;
        case.grant(&Wish::Apply(described(mesh, nodes, routes, if waits { 1_000 } else { 0 })));
        assert_eq!((case.entries.len(), case.waiting.is_some()), (number + 1, waits));
    }
    case
}

/// A mesh whose first node is in a region, and with routes from nodes to others.
fn described(mesh: &str, nodes: &[&str], routes: &[usize], confirm_within_ms: u64) -> v1::ApplyRequest {
    let region = v1::RegionFields { region_name: Some("a".into()), ..v1::RegionFields::default() };
    let node = |(at, name): (usize, &&str)| {
        let (node_name, ip_address) = (Some((*name).to_owned()), Some("host".into()));
        let fields = Some(v1::NodeFields { node_name, ip_address, ..v1::NodeFields::default() });
        v1::NodeSpec { fields, region: (at == 0).then(|| "a".into()) }
    };
    let route = |way: &usize| v1::RouteSpec {
        source: nodes[way % nodes.len()].into(),
        target: nodes[(way + 1 + way / 3) % nodes.len()].into(),
        fields: None,
    };
    let (mesh_name, allow_join) = (Some(mesh.into()), Some("OPEN".into()));
    let spec = v1::TopologySpec {
        mesh: Some(v1::MeshFields { mesh_name, allow_join, ..v1::MeshFields::default() }),
        regions: vec![region],
        nodes: nodes.iter().enumerate().map(node).collect(),
        routes: routes.iter().map(route).collect(),
    };
    v1::ApplyRequest { spec: Some(spec), confirm_within_ms, ..v1::ApplyRequest::default() }
}

impl Case {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() {
            0..=127 => {
                let wish = self.choice(input).wish();
                self.grant(&wish);
            }
            128..=159 => {
                let (kind, bytes) = (input.below(18), input.bytes(255));
                if let Some(wish) = Wish::of_bytes(kind, bytes, &self.made) {
                    self.grant(&wish);
                }
            }
            160..=183 => self.race(input),
            184..=199 => self.pass(input),
            200..=211 => self.report(input),
            212..=219 => self.identify(input),
            220..=227 => self.progress(input),
            228..=235 => self.differ(input),
            236..=241 => self.look(input),
            242..=245 => self.cursor(input),
            246..=252 => self.vary(input),
            _ => raw(input),
        }
    }

    fn choice<'a, 'b>(&'a self, input: &'a mut Input<'b>) -> Choice<'a, 'b> {
        Choice { input, items: &self.items, made: &self.made, revision: self.replica.revision() }
    }

    fn past(&self, revision: u64) -> Items {
        let until = self.past.partition_point(|(from, _)| *from <= revision);
        self.past[..until].last().map(|(_, items)| Rc::clone(items)).unwrap_or_default()
    }

    fn is_overdue(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.due_ms <= self.replica.meta().log_time_ms)
    }

    // Changes.

    fn grant(&mut self, wish: &Wish) {
        if let Some(decision) = self.decide(wish) {
            self.propose(decision, false);
        }
    }

    /// What is decided now; `None`: there is nothing to propose. And whether that is right, where it is known.
    fn decide(&mut self, wish: &Wish) -> Option<Decision> {
        let (view, revision) = (self.replica.view(), self.replica.revision());
        let decision = wish.decide(&view, &mut self.made);
        if let Err(error) = &decision {
            refused(error);
        }
        let waiting = self.waiting.as_ref();
        let answer = decision.as_ref().map(|decision| decision.write.is_some());
        match wish {
            Wish::Confirm(v1::ConfirmRequest { revision, .. }) => {
                let meant = waiting.is_some_and(|waiting| [0, waiting.revision].contains(revision));
                assert!(answer.is_err() || (meant && !self.is_overdue()), "confirmed: {wish:?}");
                assert!(answer.is_ok() || !meant || self.is_overdue() || wish.note().is_err(), "{answer:?}");
            }
            Wish::Rollback(v1::RollbackRequest { revision: to, .. }) => {
                let different = *to <= revision && (waiting.is_some() || self.past(*to) != self.items);
                match answer {
                    Ok(changes) => assert!(*to <= revision && changes == different, "{wish:?}"),
                    Err(_) => assert!(*to > revision || wish.note().is_err(), "{wish:?}: {answer:?}"),
                }
            }
            Wish::Overdue => assert_eq!(answer, Ok(self.is_overdue())),
            _ if waiting.is_some() => assert!(answer.is_err(), "changed while a change waits: {wish:?}"),
            _ => {}
        }
        let decision = decision.ok()?;
        if decision.write.is_none() {
            assert_eq!(decision.edits.clone().unwrap_or_default(), vec![], "{wish:?}");
            return None;
        }
        Some(decision)
    }

    /// Proposes what was decided; `raced`: the topology has changed since.
    fn propose(&mut self, decision: Decision, raced: bool) {
        let before = (self.replica.revision(), self.replica.meta().state_hash());
        let Decision { revision: decided_on, write, note, cause, edits, created, applied } = decision;
        let write = write.expect("there is something to propose");
        let (outcome, commits) = self.replica.propose(write.guards, Action::Transact(write.transaction));
        let after = (self.replica.revision(), self.replica.meta().state_hash());
        if raced {
            assert_eq!(
                (outcome, commits, after),
                (Outcome::Raced, vec![], before),
                "it relied on what is no longer so"
            );
            return self.unchanged();
        }
        let Decided { revision, succeeded } = write.meaning.of(outcome, None).expect("what a layer made is done");
        assert!(succeeded && revision == before.0 + 1 && after.0 == revision && commits.len() == 1);
        let view = self.replica.view();
        let items = self.seen(&view);
        let expected = difference(&self.items, &items);
        assert!(edits.is_none_or(|edits| edits == expected), "the layer said that another change is to be");
        let change = Change { author: note.author, reason: note.reason, cause: cause.clone(), edits: expected.clone() };
        self.entries.push(HistoryEntry { revision, at_ms: self.replica.wall_ms, change });
        self.count(revision, &expected);
        sound(&items);
        match cause {
            Cause::Rollback(to) | Cause::Unconfirmed(to) => assert_eq!(items, self.past(to), "{to} is not as it was"),
            Cause::Confirm(_) => assert_eq!(items, self.items),
            Cause::Edit | Cause::Apply | Cause::ApplyUnconfirmed(_) => assert_ne!(items, self.items),
        }
        if let Some(id) = created {
            assert!(items.contains_key(&id) && !self.items.contains_key(&id));
        }
        self.waiting = match cause {
            Cause::ApplyUnconfirmed(confirm_ms) => {
                let pending = Pending { before: decided_on, author: self.author(), confirm_ms };
                Some(Waiting { revision, pending, due_ms: self.replica.meta().log_time_ms + confirm_ms })
            }
            _ => None,
        };
        self.reports.retain(|node_id, _| items.contains_key(node_id));
        self.identities.retain(|_, node_id| items.contains_key(node_id));
        self.past.push((revision, Rc::clone(&items)));
        self.items = items;
        self.check(&view, revision);
        if let Some(spec) = applied {
            self.is_so(&view, &spec);
        }
    }

    fn author(&self) -> String {
        self.entries.last().map(|entry| entry.change.author.clone()).unwrap_or_default()
    }

    /// What a revision did to the records of items.
    fn count(&mut self, revision: u64, edits: &[Edit]) {
        for edit in edits {
            let id = edit.item().expect("an edit of an item").id().to_owned();
            match (&edit.before, &edit.after) {
                (_, None) => drop(self.versions.remove(&id)),
                (None, Some(_)) => drop(self.versions.insert(id, (revision, revision, 1))),
                (Some(_), Some(_)) => {
                    let (_, changed, version) = self.versions.get_mut(&id).expect("it was there before");
                    (*changed, *version) = (revision, *version + 1);
                }
            }
        }
    }

    /// All items, as lists show them.
    fn seen(&self, view: &View) -> Items {
        let all = ItemKind::ALL.into_iter().flat_map(|kind| listed(view, kind, self.limit));
        Rc::new(all.map(|stored| (stored.value.id().to_owned(), stored.value)).collect())
    }

    /// That the history tells of the last change what became of the items.
    fn check(&self, view: &View, revision: u64) {
        let entry = self.entries.last().expect("a change");
        let read = |page: &PageRequest| history::list(revision - 1, page).expect("a list").read(view).expect("a page");
        assert_eq!(whole(pages(100, read)), vec![entry.clone()]);
        assert_eq!(history::diff(view, revision - 1, revision).as_ref(), Ok(&entry.change.edits));
        assert_eq!(history::diff(view, 0, 0), Ok(difference(&Items::default(), &self.items)));
        assert_eq!(show::changed_revision(view), Ok(revision));
        told_entry(entry);
        let pending = confirm::pending(view).expect("it can be read");
        let waiting = self.waiting.as_ref().map(|waiting| (waiting.revision, waiting.pending.clone()));
        assert_eq!(pending, waiting);
        if let Some(pending) = pending {
            assert_eq!(<(u64, Pending)>::from(sent(&v1::PendingChange::from(pending.clone()))), pending);
        }
    }

    /// That a specification that was applied is what is, and applied again is no change.
    fn is_so(&self, view: &View, spec: &meshstore::model::topology::Spec) {
        let mesh = show::by_name(view, ItemKind::Mesh, &spec.mesh).expect("it was applied");
        let MeshTopology { nodes, routes, .. } = show::topology(view, mesh.value.id()).expect("it is there");
        let mut wanted: Vec<&str> = spec.nodes.iter().map(|node| node.name.as_str()).collect();
        wanted.sort_unstable();
        assert_eq!(nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), wanted);
        assert_eq!(routes.len(), spec.routes.len());
        self.changes_nothing(view, spec.clone());
    }

    fn changes_nothing(&self, view: &View, spec: meshstore::model::topology::Spec) {
        let (again, key) =
            proto::topology::spec(sent(&proto::topology::spec_message(spec.clone(), None))).expect("valid");
        let mut expected = spec.clone();
        expected.mesh_change.join_key_hash = None;
        for node in &mut expected.nodes {
            node.change.name = None;
        }
        assert_eq!((again, key), (expected, None));
        let mut draft = Draft::open_anyway(view).expect("it can be read");
        layer::apply(&mut draft, &mut Made::default(), spec).expect("it was so already");
        assert_eq!(draft.edits(), Ok(vec![]), "what is so already is a change");
    }

    /// A mesh is applied as it is shown, but for what is left out, and in another order.
    fn vary(&mut self, input: &mut Input<'_>) {
        let mesh_id = self.choice(input).id(ItemKind::Mesh);
        let Ok(topology) = show::topology(&self.replica.view(), &mesh_id) else { return };
        let mut spec = export(topology);
        let (without, confirm) = (input.byte(), input.byte());
        let mut at = 0;
        let mut stays = || {
            at += 1;
            without >> (at % 8) & 1 == 0
        };
        spec.routes.retain(|_| stays());
        spec.nodes.retain(|_| stays());
        let nodes: Vec<&str> = spec.nodes.iter().map(|node| node.name.as_str()).collect();
        spec.routes.retain(|route| nodes.contains(&route.source.as_str()) && nodes.contains(&route.target.as_str()));
        if without & 1 == 1 {
            spec.nodes.reverse();
            spec.routes.reverse();
        }
        let confirm_within_ms = if confirm & 3 == 3 { 1_000 } else { 0 };
        let spec = Some(proto::topology::spec_message(spec, None));
        self.grant(&Wish::Apply(sent(&v1::ApplyRequest { spec, confirm_within_ms, ..v1::ApplyRequest::default() })));
    }

    fn unchanged(&self) {
        assert_eq!(self.seen(&self.replica.view()), self.items);
    }

    /// Something is decided, then something else happens, then it is proposed.
    fn race(&mut self, input: &mut Input<'_>) {
        let confirm = self.waiting.is_some() && input.flag();
        let wish = if confirm { Wish::Confirm(v1::ConfirmRequest::default()) } else { self.choice(input).wish() };
        let Some(decision) = self.decide(&wish) else { return };
        let changes = self.entries.len();
        match input.below(4) {
            0 => self.report(input),
            1 => self.pass(input),
            _ => {
                let other = self.choice(input).wish();
                self.grant(&other);
            }
        }
        let late = matches!(wish, Wish::Confirm(_)) && self.is_overdue();
        self.propose(decision, late || self.entries.len() > changes);
    }

    // What goes on beside.

    fn pass(&mut self, input: &mut Input<'_>) {
        let ms = [0, 1, 998, 999, 1_000, 1_001, 5_000, 86_400_000][input.below(8)];
        self.replica.log_time_ms += ms;
        self.replica.wall_ms += ms / 2;
        self.replica.propose(vec![], Action::Tick);
        self.unchanged();
        self.grant_if_overdue(input);
    }

    /// Mostly the leader is quick.
    fn grant_if_overdue(&mut self, input: &mut Input<'_>) {
        if input.flag() {
            self.grant(&Wish::Overdue);
        }
    }

    fn report(&mut self, input: &mut Input<'_>) {
        let (node_id, revision) = (self.choice(input).id(ItemKind::Node), input.number());
        if self.beside(applied::report(&node_id, revision), &node_id) {
            self.reports.insert(node_id, (revision, self.replica.wall_ms));
        }
    }

    fn identify(&mut self, input: &mut Input<'_>) {
        let (storage_node, node_id) = (input.number(), self.choice(input).id(ItemKind::Node));
        if self.beside(applied::set_local_identity(storage_node, &node_id), &node_id) {
            self.identities.insert(storage_node, node_id);
        }
        let view = self.replica.view();
        assert_eq!(
            show::local_identity(&view, storage_node).as_ref(),
            Ok(&self.identities.get(&storage_node).cloned())
        );
    }

    /// A write beside a node: whether it was done, which it is if the node is there.
    fn beside(&mut self, write: meshstore::Result<Write>, node_id: &str) -> bool {
        let before = (self.replica.revision(), self.replica.meta().state_hash());
        let write = match write {
            Ok(write) => write,
            Err(error) => {
                refused(&error);
                return false;
            }
        };
        let (outcome, _) = self.replica.propose(write.guards, Action::Transact(write.transaction));
        let there = matches!(self.items.get(node_id), Some(Item::Node(_)));
        match write.meaning.of(outcome, None) {
            Ok(_) => assert!(there),
            Err(error) => {
                assert!(!there && matches!(error, Error::NotFound { .. }), "{error:?}");
                assert_eq!((self.replica.revision(), self.replica.meta().state_hash()), before);
                refused(&error);
            }
        }
        there
    }

    // Reads.

    fn progress(&mut self, input: &mut Input<'_>) {
        let shape = input.byte();
        let mut choice = self.choice(input);
        let mesh_id = choice.id(ItemKind::Mesh);
        let node_ids: Vec<String> = (0..shape & 3).map(|_| choice.id(ItemKind::Node)).collect();
        let region_id = if shape & 4 == 4 { choice.id(ItemKind::Region) } else { String::new() };
        let selector = Selector { mesh_id, node_ids, region_id };
        assert_eq!(Selector::from(sent(&v1::NodeSelector::from(selector.clone()))), selector);
        let progress = match applied::progress(&self.replica.view(), &selector) {
            Ok(progress) => progress,
            Err(error) => return refused(&error),
        };
        let Selector { mesh_id, node_ids, region_id } = selector;
        let of = |item: &Item| match item {
            Item::Node(node) if node.mesh_id == mesh_id => {
                let inside = region_id.is_empty() || node.region_id.as_ref() == Some(&region_id);
                let asked = node_ids.iter().filter(|id| **id == node.id).count();
                let times = if node_ids.is_empty() { 1 } else { asked };
                let (revision, reported_at_ms) = self.reports.get(&node.id).copied().unwrap_or_default();
                let (node_id, node_name) = (node.id.clone(), node.name.clone());
                vec![Applied { node_id, node_name, revision, reported_at_ms }; if inside { times } else { 0 }]
            }
            _ => vec![],
        };
        let mut expected: Vec<Applied> = self.items.values().flat_map(of).collect();
        expected.sort_by(|a, b| a.node_name.cmp(&b.node_name));
        assert_eq!(progress, expected);
        for applied in progress {
            assert_eq!(Applied::from(sent(&v1::AppliedInfo::from(applied.clone()))), applied);
        }
    }

    fn differ(&mut self, input: &mut Input<'_>) {
        let mut choice = self.choice(input);
        let (from, to) = (choice.revision(), choice.revision());
        let present = self.replica.revision();
        let until = if to == 0 { present } else { to };
        match history::diff(&self.replica.view(), from, to) {
            Ok(edits) => {
                assert!(until <= present && from <= until);
                assert_eq!(edits, difference(&self.past(from), &self.past(until)));
            }
            Err(error) => {
                assert!(until > present || from > until, "{error:?}");
                refused(&error);
            }
        }
    }

    /// Whatever is asked for by an id or name.
    fn look(&mut self, input: &mut Input<'_>) {
        let kind = ItemKind::ALL[input.below(4)];
        let id = self.choice(input).id(kind);
        let view = self.replica.view();
        let expected = self.items.get(&id).filter(|item| item.kind() == kind);
        match show::get(&view, "id", kind, &id) {
            Ok(found) => assert_eq!(Some(&found.value), expected),
            Err(error) => {
                assert_eq!(expected, None);
                refused(&error);
            }
        }
        for read in [show::topology(&view, &id).map(drop), show::routes_for_node(&view, &id).map(drop)] {
            if let Err(error) = read {
                refused(&error);
            }
        }
        let name = String::from_utf8_lossy(input.bytes(4)).into_owned();
        let named = self.items.values().find(|item| item.kind() == kind && item.name() == Some(&name));
        assert_eq!(show::by_name(&view, kind, &name).ok().map(|found| found.value).as_ref(), named);
    }

    /// A cursor of one list is of no use to another, and one that is damaged to none.
    fn cursor(&mut self, input: &mut Input<'_>) {
        let view = self.replica.view();
        let one = PageRequest { limit: 1, cursor: String::new() };
        let mut given = show::list(ItemKind::Mesh, &one).expect("a list").read(&view).expect("a page").next_cursor;
        let foreign = PageRequest { limit: 1, cursor: given.clone() };
        if !given.is_empty() {
            refused(&show::list(ItemKind::Region, &foreign).expect_err("a cursor of another list"));
            refused(&history::list(0, &foreign).expect_err("a cursor of another list"));
        }
        let (at, with) = (input.below(64), input.byte());
        if at < given.len() {
            given.replace_range(at..=at, &char::from(b' ' + with % 95).to_string());
        } else {
            given = String::from_utf8_lossy(input.bytes(40)).into_owned();
        }
        let forged = PageRequest { limit: 1_000, cursor: given };
        match show::list(ItemKind::Mesh, &forged).and_then(|list| list.read(&view)) {
            Ok(page) => assert!(page.items.iter().all(|stored| self.items.contains_key(stored.value.id()))),
            Err(error) => refused(&error),
        }
    }

    /// What holds of the whole in the end.
    fn end(&self) {
        self.replica.audit();
        let view = self.replica.view();
        let read = |page: &PageRequest| history::list(0, page).expect("a list").read(&view).expect("a page");
        assert_eq!(whole(pages(self.limit, read)), self.entries);
        assert_eq!(self.seen(&view), self.items);
        for kind in ItemKind::ALL {
            for stored in listed(&view, kind, 1_000) {
                told_item(&stored);
                let version = (stored.create_revision, stored.mod_revision, stored.version);
                assert_eq!(self.versions.get(stored.value.id()), Some(&version));
                if let Some(name) = stored.value.name() {
                    assert_eq!(show::by_name(&view, kind, name), Ok(stored.clone()));
                }
            }
        }
        for item in self.items.values() {
            match item {
                Item::Mesh(mesh) => self.mesh(&view, &mesh.id),
                Item::Node(node) => {
                    let from = |item: &&Item| matches!(item, Item::Route(route) if route.source_node_id == node.id);
                    let routes = show::routes_for_node(&view, &node.id).expect("a node");
                    let routes: Vec<Item> = routes.into_iter().map(|route| route.value).collect();
                    assert_eq!(routes.iter().collect::<Vec<_>>(), self.items.values().filter(from).collect::<Vec<_>>());
                }
                Item::Route(_) | Item::Region(_) => {}
            }
        }
        for (storage_node, node_id) in &self.identities {
            assert_eq!(show::local_identity(&view, *storage_node).as_ref(), Ok(&Some(node_id.clone())));
        }
    }

    fn mesh(&self, view: &View, mesh_id: &str) {
        let topology = shown(view, &self.items, mesh_id);
        let read = |page: &PageRequest| show::list_nodes(mesh_id, page).expect("a list").read(view).expect("a page");
        let nodes: Vec<Item> = pages(self.limit, read).into_iter().map(|stored| stored.value).collect();
        assert_eq!(nodes, topology.nodes.iter().cloned().map(Item::Node).collect::<Vec<_>>());
        self.changes_nothing(view, export(items::told(topology)));
    }
}

/// The entries of one revision as one.
fn whole(entries: Vec<HistoryEntry>) -> Vec<HistoryEntry> {
    let mut whole: Vec<HistoryEntry> = Vec::new();
    for entry in entries {
        match whole.last_mut() {
            Some(last) if last.revision == entry.revision => {
                let edits = entry.change.edits.clone();
                let changed = HistoryEntry { change: Change { edits, ..last.change.clone() }, ..last.clone() };
                assert_eq!(entry, changed, "a part of another change");
                last.change.edits.extend(entry.change.edits);
            }
            _ => whole.push(entry),
        }
    }
    whole
}

/// An answer that is no success, and no sign of a broken node.
fn refused(error: &Error) {
    let known = matches!(
        error,
        Error::InvalidArgument { .. }
            | Error::NotFound { .. }
            | Error::Refused(_)
            | Error::PermissionDenied(_)
            | Error::Conflict(_)
    );
    assert!(known, "{error:?}");
    told(error);
}

/// What else comes over the wire.
fn raw(input: &mut Input<'_>) {
    let (kind, bytes) = (input.below(16), input.rest());
    match kind {
        0 => answer::<v1::HistoryEntry, HistoryEntry>(bytes),
        1 => answer::<v1::Edit, Edit>(bytes),
        2 => answer::<v1::ShowTopologyResponse, MeshTopology>(bytes),
        3 => answer::<v1::TopologyItem, Item>(bytes),
        4 => decoded::<v1::ShowMeshResponse>(bytes),
        5 => decoded::<v1::HistoryResponse>(bytes),
        6 => decoded::<v1::ShowAppliedResponse>(bytes),
        7 => decoded::<v1::WaitUntilAppliedRequest>(bytes),
        8 => decoded::<v1::ListNodesRequest>(bytes),
        9 => decoded::<v1::ApplyResponse>(bytes),
        10 => decoded::<v1::SeedMeshResponse>(bytes),
        11 => decoded::<v1::DiffRequest>(bytes),
        12 => decoded::<v1::ReportAppliedRequest>(bytes),
        13 => decoded::<v1::SetLocalIdentityRequest>(bytes),
        14 => decoded::<v1::ShowNodeRequest>(bytes),
        _ => decoded::<v1::DiffResponse>(bytes),
    }
}
