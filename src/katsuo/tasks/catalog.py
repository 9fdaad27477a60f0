"""The sixteen task types: a table, and the looking-up of a name."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

from katsuo.registry import unknown_name
from katsuo.tasks import checks
from katsuo.tasks.checks import Check
from katsuo.tasks.shapes import AnswerShape, Labels, Options, Span, Text


@dataclass(frozen=True)
class Worked:
    """A worked example: `instruction` holds `{{context}}` where the passage is to stand."""

    passage: str
    instruction: str
    response: str


@dataclass(frozen=True)
class TaskType:
    """One task type: how it is called, what an answer may be, what is checked, and worked examples."""

    name: str
    short: str
    description: str
    answer: AnswerShape
    checks: tuple[Check, ...]
    examples: tuple[Worked, ...]


_YES_NO = (("yes", "no"), ("true", "false"))
_NLI = (
    ("yes", "no", "maybe"),
    ("true", "false", "neither"),
    ("true", "false", "inconclusive"),
    ("correct", "incorrect", "inconclusive"),
    ("always", "never", "sometimes"),
    ("guaranteed", "impossible", "possible"),
    ("entailment", "contradiction", "neutral"),
)
_SENTIMENT = (
    ("positive", "negative"),
    ("positive", "negative", "neutral"),
    ("yes", "no"),
    ("good", "bad"),
    ("satisfied", "dissatisfied"),
    ("increase", "decrease"),
    ("flattering", "unflattering"),
)
_SAME = (("yes", "no"), ("true", "false"), ("equivalent", "not equivalent"), ("duplicates", "not duplicates"))
_FORM = (checks.refers_to_passage, checks.not_copied)
_GROUNDED = (*_FORM, checks.about_passage)

_BRIDGE = (
    "The old bridge over the river Tamar opened in 1932. It was designed by Ruth Ellery, and repairs to its "
    "steel deck began in March 2015."
)
_POLICY = (
    "Employees may work from home on two days a week. A request must be sent to the team lead at least five days "
    "ahead. Laptops remain the property of the company."
)

CATALOG: tuple[TaskType, ...] = (
    TaskType(
        name="extractive question answering",
        short="exqa",
        description="Ask a question whose answer stands word for word in the passage, and give that span.",
        answer=Span(),
        checks=(*_GROUNDED, checks.answer_in_passage, checks.not_given_away),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nQuestion: Who designed the bridge over the Tamar?\nAnswer:",
                "Ruth Ellery",
            ),
            Worked(
                _POLICY,
                "Read the text and answer the question.\n\n{{context}}\n\nHow early must a request to work from home be sent?",
                "at least five days ahead",
            ),
        ),
    ),
    TaskType(
        name="multiple-choice question answering",
        short="mcqa",
        description="Ask a question about the passage, list options as lines that start with A., B., C., and give the right one.",
        answer=Options(),
        checks=(*_GROUNDED, checks.answer_an_option),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nWhat began in March 2015?\nA. the design of the bridge\nB. repairs to the steel deck\nC. the opening of the bridge",
                "repairs to the steel deck",
            ),
            Worked(
                _POLICY,
                "{{context}}\n\nWho owns the laptops?\nA. the company\nB. the employees\nC. the team lead",
                "the company",
            ),
        ),
    ),
    TaskType(
        name="question generation",
        short="qg",
        description="Ask for a question about the passage, and give that question.",
        answer=Text(max_chars=300),
        checks=(*_FORM, checks.response_about_passage),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nWrite a question about the text above.",
                "When did repairs to the steel deck of the bridge begin?",
            ),
            Worked(
                _POLICY,
                "Passage: {{context}}\nWhat question could a reader ask about working from home?",
                "On how many days a week may employees work from home?",
            ),
        ),
    ),
    TaskType(
        name="question answering without choices",
        short="qa",
        description="Ask an open question about the passage, and answer it in a few words of your own.",
        answer=Text(max_chars=300),
        checks=(*_GROUNDED, checks.not_given_away),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nWhat happened to the bridge in 2015?",
                "Its steel deck was repaired.",
            ),
            Worked(
                _POLICY,
                "{{context}}\nQuestion: What happens to a laptop when its user leaves?\nAnswer:",
                "It goes back to the company, which owns it.",
            ),
        ),
    ),
    TaskType(
        name="yes-no question answering",
        short="ynqa",
        description="Ask a question about the passage that is answered with yes or no, and answer it.",
        answer=Labels(_YES_NO),
        checks=(*_GROUNDED, checks.answer_in_labels),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nDid the bridge over the Tamar open before 1950? Yes or no?",
                "Yes",
            ),
            Worked(
                _POLICY,
                "Passage: {{context}}\n\nMay employees keep their laptops? Yes or no?",
                "No",
            ),
        ),
    ),
    TaskType(
        name="coreference resolution",
        short="coref",
        description="Ask whether a word in the passage stands for somebody or something named in it, and answer.",
        answer=Labels(_YES_NO),
        checks=(*_GROUNDED, checks.answer_in_labels),
        examples=(
            Worked(
                _BRIDGE,
                '{{context}} Here, does "It" in the second sentence stand for the bridge? Yes or no?',
                "Yes",
            ),
            Worked(
                "Tom thanked Ann because she had mended his bicycle.",
                '{{context}} In the sentence above, does the pronoun "she" refer to Tom? Yes or no?',
                "No",
            ),
        ),
    ),
    TaskType(
        name="paraphrase generation",
        short="paraphrase",
        description="Ask for the passage, or one sentence of it, in other words, and give them.",
        answer=Text(),
        checks=(*_FORM, checks.response_about_passage),
        examples=(
            Worked(
                "Repairs to the bridge began in March 2015.",
                "Say the following in other words: {{context}}",
                "Work to mend the bridge started in March 2015.",
            ),
            Worked(
                "A request must be sent five days ahead.",
                "Paraphrase this sentence.\n{{context}}",
                "Requests have to arrive five days in advance.",
            ),
        ),
    ),
    TaskType(
        name="paraphrase identification",
        short="paraphrase_id",
        description="Give a second sentence and ask whether it means the same as the passage.",
        answer=Labels(_SAME),
        checks=(*_GROUNDED, checks.answer_in_labels),
        examples=(
            Worked(
                "Repairs to the bridge began in March 2015.",
                "Sentence 1: {{context}}\nSentence 2: Work to mend the bridge started in March 2015.\nDo they mean the same thing? Yes or no?",
                "Yes",
            ),
            Worked(
                "A request must be sent five days ahead.",
                "{{context}}\nAnd: A request can be sent on the same day.\nDo these two sentences mean the same? Yes or no?",
                "No",
            ),
        ),
    ),
    TaskType(
        name="sentence completion",
        short="sent_comp",
        description="Take the passage as a beginning and ask how it goes on; give the continuation.",
        answer=Options(is_required=False),
        checks=(*_FORM,),
        examples=(
            Worked(
                "The engineers closed the bridge because",
                "Complete the sentence: {{context}}",
                "its steel deck had rusted through.",
            ),
            Worked(
                "She sent the request too late, so",
                "How does this go on?\n{{context}}",
                "her team lead turned it down.",
            ),
        ),
    ),
    TaskType(
        name="sentiment",
        short="sentiment",
        description="Ask which feeling or judgement the passage expresses, and answer.",
        answer=Labels(_SENTIMENT),
        checks=(*_FORM, checks.answer_in_labels),
        examples=(
            Worked(
                "The staff were kind and the soup was the best I ever had.",
                "{{context}}\nIs this review positive or negative?",
                "Positive",
            ),
            Worked(
                "The screen broke after two days and nobody answered my letters.",
                "{{context}} Did the customer find the product good or bad?",
                "Bad",
            ),
        ),
    ),
    TaskType(
        name="summarization",
        short="summarization",
        description="Ask for a summary of the passage, and give one.",
        answer=Text(),
        checks=(*_FORM, checks.response_about_passage),
        examples=(
            Worked(
                _BRIDGE,
                "Summarise the following text in one sentence:\n\n{{context}}",
                "The Tamar bridge by Ruth Ellery opened in 1932 and has been under repair since 2015.",
            ),
            Worked(
                _POLICY,
                "{{context}}\n\nIn short:",
                "Staff may work from home twice a week if they ask five days ahead; laptops stay company property.",
            ),
        ),
    ),
    TaskType(
        name="text generation",
        short="text_gen",
        description="Ask for a text like the passage from a few of its facts; the response is the passage.",
        answer=Text(),
        checks=(*_FORM, checks.about_passage_or_is_it),
        examples=(
            Worked(
                _BRIDGE,
                "Write a short text about a bridge that Ruth Ellery designed.",
                "{{context}}",
            ),
            Worked(
                _POLICY,
                "Write a paragraph of a staff handbook about working from home and about laptops.",
                "{{context}}",
            ),
        ),
    ),
    TaskType(
        name="topic classification",
        short="topic_class",
        description="Ask what the passage is about, listing possible topics, and give the right one.",
        answer=Options(is_required=False),
        checks=(*_FORM,),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nWhich topic fits this text? Choose one of: engineering, sports, cooking",
                "engineering",
            ),
            Worked(
                _POLICY,
                "What is the following text about?\n\n{{context}}\n\nOptions: rules at work, travel, music",
                "rules at work",
            ),
        ),
    ),
    TaskType(
        name="word sense disambiguation",
        short="wsd",
        description="Take a word of the passage and a second sentence with it, and ask whether it means the same in both.",
        answer=Labels(_YES_NO),
        checks=(*_GROUNDED, checks.answer_in_labels),
        examples=(
            Worked(
                "The bank of the river was steep.",
                '{{context}}\nShe put her savings into the bank.\nDoes "bank" mean the same in both sentences? Yes or no?',
                "No",
            ),
            Worked(
                "He drew a line under the word.",
                '{{context}}\nThe child drew a line on the wall.\nIs "line" used in the same sense? Yes or no?',
                "Yes",
            ),
        ),
    ),
    TaskType(
        name="textual entailment",
        short="te",
        description="Write a statement and ask whether it follows from the passage; answer yes or no, or true or false.",
        answer=Labels(_YES_NO),
        checks=(*_GROUNDED, checks.answer_in_labels),
        examples=(
            Worked(
                _BRIDGE,
                "{{context}}\n\nDoes it follow that Ruth Ellery built ships? Yes or no?",
                "No",
            ),
            Worked(
                _POLICY,
                "Given that {{context}} Can we infer that laptops belong to the company? Yes or no?",
                "Yes",
            ),
        ),
    ),
    TaskType(
        name="natural language inference",
        short="nli",
        description="Write a statement and ask whether the passage makes it true, makes it false, or leaves it open.",
        answer=Labels(_NLI),
        checks=(*_GROUNDED, checks.answer_in_labels),
        examples=(
            Worked(
                _BRIDGE,
                '{{context}}\n\nIs it true that "The bridge is younger than ten years."? Yes, no, or maybe?',
                "No",
            ),
            Worked(
                _POLICY,
                '{{context}}\nQuestion: "Most employees ask for two days a week." True, false, or neither?',
                "Neither",
            ),
        ),
    ),
)


def known_tasks() -> dict[str, TaskType]:
    """Give every task type by its full and its short name; packages add theirs as `katsuo.tasks` entry points."""
    added = [entry.load() for entry in metadata.entry_points(group="katsuo.tasks")]
    return {key: task for task in (*CATALOG, *added) for key in (task.name, task.short)}


def find_task(name: str) -> TaskType:
    """Give the task type of a full or short name; raise `UnknownNameError` with the nearest known one."""
    tasks = known_tasks()
    if name not in tasks:
        raise unknown_name("task type", name, tasks)
    return tasks[name]
