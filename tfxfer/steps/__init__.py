"""The steps that recipes are made of.

A recipe calls them one after the other. Each takes the run and what earlier steps returned:

    prepare ─Ready─> extract ─Extracted─> choose_head, train_head or tune ─Result─> finish

For `tune`, `choose_augmentations`, `last_stages` and `whole_network` say what is trained. Where
several workers share a run, all of them call these steps, and only the main one gets a result.

choose_network which of several networks to take
extraction     prepare, extract: from data and network to features
head           choose_head, train_head
tune_network   choose_augmentations, last_stages, whole_network, tune
result         Result, finish
"""

from tfxfer.steps.choose_network import ChosenNetwork, choose_network, offline_names
from tfxfer.steps.extraction import Extracted, Ready, extract, prepare
from tfxfer.steps.head import TRAINED_HEADS, Head, choose_head, is_trained, train_head
from tfxfer.steps.result import Result, finish
from tfxfer.steps.tune_network import choose_augmentations, last_stages, tune, whole_network

__all__ = [
    "TRAINED_HEADS",
    "ChosenNetwork",
    "Extracted",
    "Head",
    "Ready",
    "Result",
    "choose_augmentations",
    "choose_head",
    "choose_network",
    "extract",
    "finish",
    "is_trained",
    "last_stages",
    "offline_names",
    "prepare",
    "train_head",
    "tune",
    "whole_network",
]
