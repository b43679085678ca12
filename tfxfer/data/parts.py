"""Words that name a part of the data: one list for folders, tables and TensorFlow Datasets."""

import re
import unicodedata

# English first, then the other languages that are most often used to sort photos.
TRAIN = """
train training trainings trn
apprentissage entraînement entrenamiento treinamento treino addestramento träning trening træning
eğitim обучение 训练 訓練 学習 훈련 학습
""".split()
VALIDATION = """
validation val valid validate validating dev
validación validação validazione validierung validering validatie walidacja doğrulama валидация
验证 驗證 検証 검증
""".split()
TEST = """
test testing tst evaluation eval holdout
essai prueba pruebas teste testes prova prüfung тест тестирование 测试 測試 テスト 테스트
""".split()
# Endings to remove: "traindata" and "testset" begin with the word for a part.
ENDS = re.compile(r"(set|data|daten|images?|imgs?|photos?|split|folder|dir|集|用)$")
# The words of a name: "seg_train", "trainingSet", "Test Images" and "train2017" each hold the word
# for a part.
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def without_accents(text: str) -> str:
    """Return a text without accents and in lower case: "Entraînement" becomes "entrainement"."""
    letters = unicodedata.normalize("NFKD", text.strip())
    return "".join(c for c in letters if not unicodedata.combining(c)).casefold()


PARTS = {
    **{without_accents(word): "train" for word in TRAIN},
    **{without_accents(word): "validation" for word in VALIDATION},
    **{without_accents(word): "test" for word in TEST},
}


def part_of(word: str) -> str | None:
    """Return the part that a word means: "train", "validation", "test", or None.

    Upper and lower case do not matter.
    """
    plain = without_accents(word)
    return PARTS.get(plain) or PARTS.get(ENDS.sub("", plain))


def part_in(name: str) -> str | None:
    """Return the part that one of the words of a longer name means, such as in "seg_train".

    Return None if no word means a part, or if the words mean several parts.
    """
    parts = {part for word in (name, *WORD.findall(name)) if (part := part_of(word))}
    return parts.pop() if len(parts) == 1 else None
