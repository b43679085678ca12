"""Checks and bounds that protect a user from the files of strangers.

names       names from strangers, made harmless where they are shown
arrays      .npz files that anybody may have written
ours        settings that this user wrote, told from those of a stranger
"""
