"""The suite; its folders mirror dtrain's."""
