package org.words;

public final class Words {
  public static String greet(String who) {
    return "hello " + who;
  }
}
